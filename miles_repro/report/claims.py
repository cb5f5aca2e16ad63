"""The paper's claims, each with its hypothesis, its test and the verdict of our numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from miles_repro.paper import DATASETS, FUSIONS, NEAR
from miles_repro.report import checks
from miles_repro.report.checks import UNRUN, Finding, combined
from miles_repro.report.names import place
from miles_repro.report.provenance import Origin
from miles_repro.report.table import Sheet, Table
from miles_repro.selection import Study
from miles_repro.verdicts import EPS

Check = Callable[[Study, str], Finding]


@dataclass(frozen=True)
class Claim:
    """statement: what is claimed; where: who claims it; test: its parts, one contrast each,
    with places for the margins ``{fused}`` and ``{heads}``."""

    name: str
    statement: str
    where: str
    test: str
    check: Check

    def told(self, studies: Sequence[Study]) -> str:
        """The test with the margins of these studies, which share them."""
        return self.test.format(**(studies[0].eps if studies else EPS))


PAPER = "paper, Tables II and III"
OURS = "asked here; the paper has no such row"
CONTROLS = ("vanilla_aux", "static_lr", "random_lr")

RULE = (
    "Supported: every part's anytime-valid p of 'this part does not hold' is at most 5 % in every "
    "cell (intersection-union test: no correction). Not supported: the smallest p of 'not "
    "contradicted', times the number of parts in all cells, is at most 5 %. Each verdict is false "
    "in at most 5 % of studies, however often one looks."
)

CLAIMS = (
    Claim(
        "best_fused",
        "MILES has the best fused metric of the nine methods.",
        PAPER,
        "Parts: fused, MILES - each of the other eight rows > 0. Contradicted: < 0.",
        partial(checks.best, measure="fused"),
    ),
    Claim(
        "smallest_gap",
        "MILES has the smallest gap between its unimodal encoders.",
        PAPER,
        "Parts: size of the gap between the probes, each of the other eight rows - MILES > 0. "
        "Contradicted: < 0.",
        partial(checks.best, measure="abs_gap"),
    ),
    Claim(
        "stronger_encoders",
        "MILES leaves stronger unimodal encoders than the other methods.",
        PAPER,
        "Parts: probe of the weakest modality, MILES - each of the other eight rows > 0; probe of "
        "every other modality, the same difference > -{heads:g} points (not inferior). "
        "Contradicted: below the same border.",
        checks.stronger_encoders,
    ),
    Claim(
        "near_unimodal",
        "MILES' encoders come close to the best unimodal models (1.8 ± 1.6 points below with "
        "concatenation, 2.0 ± 2.0 with summation).",
        "paper, Tables I to III",
        "Parts: probe of the unimodal model - probe of MILES, each modality by itself, below the "
        f"paper's mean plus spread ({NEAR['concat']:.1f}; {NEAR['sum']:.1f}). Contradicted: above.",
        checks.near_unimodal,
    ),
    Claim(
        "tau",
        "MILES works best at a middle tau (0.2); a larger tau favours the strong modality, a "
        "smaller one the weak one.",
        "paper, Table IV",
        "Parts: fused at tau 0.2 - at tau 0 > 0, and - at tau 0.5 > 0; slope of the strong probe "
        "over the ordered tau, per seed, > 0; of the weak probe < 0. Contradicted: the other sign.",
        partial(checks.sensitivity, parameter="tau", peak="0.2", edges=("0.0", "0.5")),
    ),
    Claim(
        "mu",
        "MILES works best at a middle mu (0.5): no reduction (1.0) and strong reduction (0.1) are "
        "worse; a larger mu favours the strong modality, a smaller one the weak one.",
        "paper, Table V",
        "As for tau, with mu 0.5 against 1.0 and 0.1.",
        partial(checks.sensitivity, parameter="mu", peak="0.5", edges=("1.0", "0.1")),
    ),
    Claim(
        "source",
        "Scheduling by training metrics does as well as by validation metrics, but needs more "
        "epochs.",
        "paper, Table VI",
        "Parts: fused, validation - training > -{fused:g} and < {fused:g} points; "
        "best epoch, the same difference < 0. Contradicted: beyond those borders.",
        checks.source,
    ),
    Claim(
        "scheduling",
        "MILES' fused metric owes something to its scheduling, not only to its auxiliary losses.",
        OURS,
        "Parts: fused, MILES - the same losses without scheduling > 0; - with a fixed modality "
        "slowed (static LR) > 0; - with a random one slowed (random LR) > 0. Contradicted: < 0.",
        partial(checks.best, measure="fused", rivals=CONTROLS),
    ),
    Claim(
        "scheduling_weak_head",
        "MILES' weak encoder owes something to its scheduling, not only to its auxiliary losses.",
        OURS,
        "As above, for the probe of the weakest modality.",
        partial(checks.best, measure="weak", rivals=CONTROLS),
    ),
    Claim(
        "auxiliary_losses",
        "Auxiliary losses alone strengthen the weak encoder.",
        OURS,
        "Part: probe of the weakest modality, vanilla with auxiliary losses - vanilla > 0. "
        "Contradicted: < 0.",
        partial(checks.best, measure="weak", subject="vanilla_aux", rivals=("vanilla",)),
    ),
)


@dataclass(frozen=True)
class Judgement:
    """One claim on one study: a finding per fusion, and what follows from them together."""

    claim: Claim
    study: Study
    findings: dict[str, Finding]

    @property
    def verdict(self) -> str:
        return combined(self.findings.values())


def judge(studies: Sequence[Study]) -> list[Judgement]:
    """Every claim on every study."""
    return [
        Judgement(claim, study, {fusion: claim.check(study, fusion) for fusion in FUSIONS})
        for claim in CLAIMS
        for study in studies
    ]


def paper_verdict(claim: Claim, judgements: Sequence[Judgement], origin: Origin) -> str:
    """The claim as the paper makes it: all its data sets (ablations: LUMA), at its budget."""
    datasets = ["luma"] if claim.name in ("tau", "mu", "source") else list(DATASETS)
    found = {
        j.study.dataset: j.findings
        for j in judgements
        if j.claim is claim and j.study.budget == "paper" and origin.in_paper(j.study.dataset)
    }
    nothing = {"": Finding([], [UNRUN], UNRUN)}
    return combined(f for name in datasets for f in found.get(name, nothing).values())


def claims_sheet(studies: Sequence[Study], origin: Origin) -> Sheet:
    """The claims page: a table of verdicts, then one table of findings per claim."""
    judgements = judge(studies)
    tables = [_verdicts(judgements, studies, origin)]
    columns = [("", "where"), ("", "verdict"), ("", "numbers")]
    for claim in CLAIMS:
        table = Table(claim.statement, columns, prose=True)
        table.notes = [f"Claimed by: {claim.where}.", claim.told(studies)]
        for judgement in (j for j in judgements if j.claim is claim):
            for fusion, finding in judgement.findings.items():
                where = f"{place(judgement.study)}, {fusion}"
                cells = (where, finding.verdict, finding.numbers)
                table.rows.append(dict(zip(columns, cells, strict=True)))
                table.data.append(
                    {
                        "claim": claim.name,
                        "dataset": judgement.study.dataset,
                        "budget": judgement.study.budget,
                        "fusion": fusion,
                        "verdict": finding.verdict,
                        "numbers": finding.numbers,
                    }
                )
        if table.rows:
            tables.append(table)
    return Sheet("claims", "Claims", tables, [origin.note()])


def _verdicts(judgements: Sequence[Judgement], studies: Sequence[Study], origin: Origin) -> Table:
    """One row per claim: the verdict in the paper's own scope, then per study."""
    columns = [("", "claim"), ("", "paper's data sets"), *[("", place(s)) for s in studies]]
    table = Table("Verdicts", columns, prose=True)
    for claim in CLAIMS:
        own = [j.verdict for j in judgements if j.claim is claim]
        cells = [claim.statement, paper_verdict(claim, judgements, origin), *own]
        table.rows.append(dict(zip(columns, cells, strict=True)))
    table.notes = [
        RULE,
        "paper's data sets: all that the claim speaks of, at budget paper. Other columns: what our "
        "numbers say of that study alone, both fusions together; stand-in data cannot confirm or "
        "refute the paper.",
    ]
    return table
