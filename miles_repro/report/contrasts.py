"""The paired comparisons of a study, judged once: tables, claims and figures all read them here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from miles_repro.paper import FUSIONS
from miles_repro.report.measures import SIGN, paired, values
from miles_repro.report.names import (
    metric_label,
    place,
    stem,
    strategies,
    strategy_label,
)
from miles_repro.report.provenance import Origin, study_notes, study_tags
from miles_repro.report.table import NONE, Sheet, Table, fixed, show_p
from miles_repro.selection import Study
from miles_repro.stats import Interval
from miles_repro.verdicts import ALPHA, Verdict, Word, verdicts

REFERENCE, SUBJECT = "vanilla_aux", "miles"
"""Every strategy is held against the plain auxiliary losses, and MILES against every strategy."""

PRIMARY = (SUBJECT, REFERENCE)
"""The contrast named beforehand: MILES minus its own losses without scheduling, fused metric."""

QUESTIONS = {
    ("miles", "vanilla_aux"): "scheduling on top of the losses",
    ("vanilla", "vanilla_aux"): "no auxiliary losses",
    ("miles", "static_lr"): "adaptive instead of static",
    ("miles", "random_lr"): "utilization instead of chance",
    ("miles", "vanilla"): "losses and scheduling",
}
"""(subject, rival) -> what the difference answers."""

SWAPPED: dict[Word, Word] = {"better": "worse", "worse": "better"}

Pair = tuple[str, str]
"""(subject, rival): the contrast is subject - rival."""

FAMILY_NOTE = (
    "Mean difference in points [95 % anytime-valid interval, uncorrected] over paired seeds. "
    "Verdict and p: Holm over this table{primary}; valid however often one looks. equal: within "
    "±{margin:g} points; better: {direction}."
)


def measures_of(study: Study) -> list[str]:
    """What strategies are compared on: fused, the probe of every modality, the size of the gap."""
    return ["fused", *study.modalities, *["abs_gap"] * (len(study.modalities) > 1)]


def families(study: Study, fusion: str) -> dict[str, list[Pair]]:
    """Holm families by the strategy in every pair: all strategies minus the reference (vanilla or
    the first where that has not run), then MILES minus all others. No pair is in two families."""
    ran = strategies(study, fusion)
    known = [name for name in (REFERENCE, "vanilla", *ran) if name in ran]
    if len(ran) < 2:
        return {}
    reference = known[0]
    found = {reference: [(name, reference) for name in ran if name != reference]}
    rest = [name for name in ran if name not in (SUBJECT, reference)]
    if SUBJECT in ran and reference != SUBJECT and rest:
        found[SUBJECT] = [(SUBJECT, name) for name in rest]
    return found


def family_label(study: Study, pivot: str, pairs: Sequence[Pair]) -> str:
    """`Strategies minus Vanilla + aux`, `MILES minus the others`"""
    label = strategy_label(study, pivot)
    return f"Strategies minus {label}" if pairs[0][1] == pivot else f"{label} minus the others"


def contrasts(
    study: Study, fusion: str, measure: str, pairs: Sequence[Pair]
) -> dict[Pair, Verdict]:
    """The verdicts of one family on one measure. "better" always favours the subject, differences
    are subject - rival; pairs without a shared decision seed are left out."""
    names = {" - ".join(pair): pair for pair in pairs}
    found = {name: differences(study, fusion, measure, *pair) for name, pair in names.items()}
    primary = " - ".join(PRIMARY) if measure == "fused" else None
    judged = verdicts({k: v for k, v in found.items() if v}, study.margin(measure), primary=primary)
    smaller = SIGN.get(measure, 1) < 0
    return {
        names[name]: replace(v, word=SWAPPED.get(v.word, v.word)) if smaller else v
        for name, v in judged.items()
    }


def differences(study: Study, fusion: str, measure: str, subject: str, rival: str) -> list[float]:
    """subject - rival per shared decision seed."""
    cells = (study.cells.get((fusion, name)) for name in (subject, rival))
    return paired(*(values(study, cell, measure) for cell in cells))


def contrasts_sheet(study: Study, origin: Origin) -> Sheet:
    """One table, which is one Holm family, per fusion, measure and subject."""
    tables = [
        _table(study, fusion, measure, family_label(study, pivot, pairs), pairs)
        for fusion in study.fusions
        for pivot, pairs in families(study, fusion).items()
        for measure in measures_of(study)
    ]
    name = f"contrasts__{stem(study)}"
    notes = [origin.note(), *study_notes(study)]
    return Sheet(name, f"Paired differences: {place(study)}", [t for t in tables if t.rows], notes)


def measure_label(study: Study, measure: str) -> str:
    if measure == "fused":
        return f"fused {metric_label(study)}"
    return "gap of probes (smaller: better)" if measure == "abs_gap" else f"{measure} (probe)"


def _table(study: Study, fusion: str, measure: str, kind: str, pairs: Sequence[Pair]) -> Table:
    columns = ["difference", "asks", "points [interval]", "verdict", "p", "n"]
    title = (
        f"{kind}: {measure_label(study, measure)}, {FUSIONS.get(fusion, fusion)}, {place(study)}"
    )
    table = Table(title, [("", name) for name in columns], leads=2)
    judged = contrasts(study, fusion, measure, pairs)
    for pair, v in judged.items():
        label = " - ".join(strategy_label(study, name) for name in pair)
        question = QUESTIONS.get(pair, NONE)
        texts = (label, question, show_verdict(v), show_word(v), show_p(v.p), str(v.n))
        table.rows.append(dict(zip(table.columns, texts, strict=True)))
        table.data.append(
            {
                "table": "contrasts",
                **study_tags(study.dataset, study),
                "fusion": fusion,
                "quantity": measure,
                "strategy": pair[0],
                "rival": pair[1],
                "difference": v.mean,
                "ci_low": v.low,
                "ci_high": v.high,
                "verdict": v.word,
                "p_holm": v.p,
                "more_seeds": v.more,
                "n": v.n,
            }
        )
    primary = ", but MILES - its losses alone, the contrast named beforehand, by itself"
    note = FAMILY_NOTE.format(
        primary=primary if measure == "fused" and PRIMARY in judged else "",
        margin=study.margin(measure),
        direction="smaller" if SIGN.get(measure, 1) < 0 else "larger",
    )
    table.notes = [f"{tally([v.word for v in judged.values()])} {note}"] if judged else [note]
    return table


def tally(words: Sequence[Word]) -> str:
    """`7 of 9 decided: 1 better, 4 worse, 2 equal.`"""
    counts = {word: words.count(word) for word in ("better", "worse", "equal") if word in words}
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"{sum(counts.values())} of {len(words)} decided{': ' * bool(told)}{told}."


def show_verdict(v: Verdict) -> str:
    """`+0.3 [-0.1, +0.7]`, or `+0.3 (no CI)`."""
    mean = fixed(v.mean, sign=True)
    if v.low is None or v.high is None:
        return f"{mean} (no CI)"
    return f"{mean} [{fixed(v.low, sign=True)}, {fixed(v.high, sign=True)}]"


def show_word(v: Verdict) -> str:
    """`better`, or `undecided, about 7 more seeds`."""
    if v.more is None:
        return v.word
    count = f"about {v.more}" if v.more < 1000 else "over 1000"
    return f"{v.word}, {count} more seed{'s' if v.more > 1 else ''}"


def separated_best(study: Study, fusion: str, measure: str) -> str | None:
    """The strategy that beats every other of its fusion on a measure, if one does.

    An intersection-union test at 5 %: each pair is judged alone, all have to agree.
    """
    from miles_repro.verdicts import verdict

    sign = SIGN.get(measure, 1)
    ran = {s: values(study, study.cells[fusion, s], measure) for s in strategies(study, fusion)}
    means = {s: sign * sum(v.values()) / len(v) for s, v in ran.items() if v}
    if len(means) < 2:
        return None
    best = max(means, key=lambda name: means[name])
    gains: list[Sequence[float]] = [
        [sign * d for d in paired(ran[best], ran[name])] for name in means if name != best
    ]
    beaten = all(g and verdict(g, study.margin(measure), ALPHA).word == "better" for g in gains)
    return best if beaten else None


def as_interval(v: Verdict) -> Interval:
    return Interval(v.mean, v.low, v.high, v.n)
