"""The paper's claims, each with the test that decides it here and the verdict of our numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from miles_repro.report import checks
from miles_repro.report.checks import NOT, OPEN, UNRUN, YES, Finding
from miles_repro.report.names import DATASETS, FUSIONS, dataset_label
from miles_repro.report.provenance import Origin
from miles_repro.report.table import Sheet, Table
from miles_repro.selection import Study

Check = Callable[[Study, str], Finding]


@dataclass(frozen=True)
class Claim:
    """statement: what is claimed; where: who claims it; test: when it counts as supported."""

    name: str
    statement: str
    where: str
    test: str
    check: Check


PAPER = "paper, Tables II and III"
HOLM = "in a paired t test over shared seeds (5 %, Holm over the rivals)"

CLAIMS = (
    Claim(
        "best_fused",
        "MILES has the best fused metric of the nine methods.",
        PAPER,
        f"Supported: MILES beats each of the other eight rows {HOLM}. "
        "Not supported: at least one row beats MILES. Undecided: anything between.",
        partial(checks.best, measure="fused"),
    ),
    Claim(
        "smallest_gap",
        "MILES has the smallest gap between its two unimodal heads.",
        PAPER,
        f"As above, with the size of the gap per seed, |strong - weak|, {HOLM}.",
        partial(checks.best, measure="abs_gap"),
    ),
    Claim(
        "stronger_encoders",
        "MILES leaves stronger unimodal encoders than the other methods.",
        PAPER,
        f"Supported: the weak head beats each of the other eight rows {HOLM}, and the strong head "
        f"is at most {checks.MARGIN:g} point below any (95 % interval). Not supported: a row "
        "beats MILES on either head.",
        checks.stronger_encoders,
    ),
    Claim(
        "near_unimodal",
        "MILES' heads come close to the best unimodal models (1.8 ± 1.6 points below with "
        "concatenation, 2.0 ± 2.0 with summation).",
        "paper, Tables I to III",
        "Mean over both modalities of (unimodal model - head), per seed. Supported: the upper end "
        "of its 95 % interval is at most the paper's mean plus spread (3.4; 4.0). Not supported: "
        "the lower end is above.",
        checks.near_unimodal,
    ),
    Claim(
        "tau",
        "MILES works best at a middle tau (0.2); a larger tau favours the strong head, a smaller "
        "one the weak head.",
        "paper, Table IV",
        "Supported: the fused metric at tau 0.2 beats tau 0 and tau 0.5, the strong head rises "
        "and the weak head falls along tau (slope over its ordered values, per seed); paired t "
        "tests, 5 %, Holm over the four. Not supported: one of the four is significantly the "
        "other way round.",
        partial(checks.sensitivity, parameter="tau", peak="0.2", edges=("0.0", "0.5")),
    ),
    Claim(
        "mu",
        "MILES works best at a middle mu (0.5): no reduction (1.0) and strong reduction (0.1) are "
        "worse; a larger mu favours the strong head, a smaller one the weak head.",
        "paper, Table V",
        "As for tau, with mu 0.5 against 1.0 and 0.1.",
        partial(checks.sensitivity, parameter="mu", peak="0.5", edges=("1.0", "0.1")),
    ),
    Claim(
        "source",
        "Scheduling by training metrics does as well as by validation metrics, but needs more "
        "epochs.",
        "paper, Table VI",
        f"Supported: the fused metrics differ by less than {checks.MARGIN:g} point (95 % interval "
        "of the paired difference) and the best epoch comes earlier with validation metrics "
        "(paired t test, 5 %). Not supported: the interval lies outside that margin, or the best "
        "epoch comes later.",
        checks.source,
    ),
    Claim(
        "scheduling",
        "MILES' fused metric owes something to its scheduling, not only to its auxiliary losses.",
        "asked here; the paper has no such row",
        "Supported: MILES beats the same losses without scheduling, with a fixed modality slowed "
        f"(static LR) and with a random one slowed (random LR), {HOLM}.",
        partial(checks.best, measure="fused", rivals=("vanilla_aux", "static_lr", "random_lr")),
    ),
    Claim(
        "scheduling_weak_head",
        "MILES' weak head owes something to its scheduling, not only to its auxiliary losses.",
        "asked here; the paper has no such row",
        "As above, for the weak head.",
        partial(checks.best, measure="weak", rivals=("vanilla_aux", "static_lr", "random_lr")),
    ),
    Claim(
        "auxiliary_losses",
        "Auxiliary losses alone strengthen the weak head.",
        "asked here; the paper has no such row",
        "Supported: vanilla with auxiliary losses beats vanilla on the weak head (paired t test, "
        "5 %). Not supported: vanilla beats it.",
        partial(checks.best, measure="weak", subject="vanilla_aux", rivals=("vanilla",)),
    ),
)


@dataclass(frozen=True)
class Judgement:
    """One claim on one data set and budget: a finding per fusion, and what follows from them."""

    claim: Claim
    dataset: str
    budget: str
    findings: dict[str, Finding]

    @property
    def verdict(self) -> str:
        return overall([finding.verdict for finding in self.findings.values()])


def overall(verdicts: Sequence[str]) -> str:
    """A claim about all cells holds if it holds in each, and fails with one failure."""
    for verdict in (NOT, OPEN, UNRUN):
        if verdict in verdicts:
            return verdict
    return YES


def judge(studies: Sequence[Study]) -> list[Judgement]:
    """Every claim on every study."""
    return [
        Judgement(
            claim,
            study.dataset,
            study.budget,
            {fusion: claim.check(study, fusion) for fusion in FUSIONS},
        )
        for claim in CLAIMS
        for study in studies
    ]


def paper_verdict(claim: Claim, judgements: Sequence[Judgement], origin: Origin) -> str:
    """The claim as the paper makes it: all its data sets (ablations: LUMA), at its budget."""
    datasets = ["luma"] if claim.name in ("tau", "mu", "source") else list(DATASETS)
    found = {
        j.dataset: j.verdict
        for j in judgements
        if j.claim is claim and j.budget == "paper" and origin.in_paper(j.dataset)
    }
    return overall([found.get(dataset, UNRUN) for dataset in datasets])


def claims_sheet(studies: Sequence[Study], origin: Origin) -> Sheet:
    """The claims page: a table of verdicts, then one table of findings per claim."""
    judgements = judge(studies)
    tables = [_verdicts(judgements, studies, origin)]
    columns = [("", "where"), ("", "verdict"), ("", "numbers")]
    for claim in CLAIMS:
        table = Table(claim.statement, columns, prose=True)
        table.notes = [f"Claimed by: {claim.where}.", claim.test]
        for judgement in (j for j in judgements if j.claim is claim):
            for fusion, finding in judgement.findings.items():
                where = f"{dataset_label(judgement.dataset)}, {judgement.budget}, {fusion}"
                cells = (where, finding.verdict, finding.numbers)
                table.rows.append(dict(zip(columns, cells, strict=True)))
                table.data.append(
                    {
                        "claim": claim.name,
                        "dataset": judgement.dataset,
                        "budget": judgement.budget,
                        "fusion": fusion,
                        "verdict": finding.verdict,
                        "numbers": finding.numbers,
                    }
                )
        if table.rows:
            tables.append(table)
    return Sheet("claims", "Claims", tables, [origin.note()])


def _verdicts(judgements: Sequence[Judgement], studies: Sequence[Study], origin: Origin) -> Table:
    """One row per claim: the verdict in the paper's own scope, then per data set and budget."""
    columns = [("", "claim"), ("", "paper's data sets")]
    columns += [("", f"{dataset_label(s.dataset)}, {s.budget}") for s in studies]
    table = Table("Verdicts", columns, prose=True)
    for claim in CLAIMS:
        own = [j.verdict for j in judgements if j.claim is claim]
        cells = [claim.statement, paper_verdict(claim, judgements, origin), *own]
        table.rows.append(dict(zip(columns, cells, strict=True)))
    table.notes = [
        "paper's data sets: all that the claim speaks of, at budget paper. Other columns: what our "
        "numbers say of that data set and budget alone; stand-in data cannot confirm or refute "
        "the paper.",
        "A claim holds if it holds with both fusions. Undecided is a result: the intervals and "
        "tests do not separate the methods at this number of seeds.",
    ]
    return table
