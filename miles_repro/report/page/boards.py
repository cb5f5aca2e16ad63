"""One fusion of one study: its rows, and every paired difference in every direction."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from miles_repro.paper import FUSIONS
from miles_repro.report.contrasts import contrasts, families, measures_of
from miles_repro.report.measures import measure
from miles_repro.report.names import strategies
from miles_repro.report.page.answers import answer, paper_best, paper_says
from miles_repro.report.provenance import Origin
from miles_repro.report.table import NONE, fixed
from miles_repro.selection import Cell, Study, is_unimodal
from miles_repro.verdicts import Verdict

Line = Mapping[str, Any]
"""A line of a CSV table."""
Lines = Mapping[tuple[str, str, str], Line]
"""By fusion, strategy and quantity."""


def board(
    study: Study, fusion: str, lines: Lines, printed: Lines, clock: str, origin: Origin
) -> dict[str, Any]:
    """Rows best first; the differences between all that have decision seeds."""
    names = strategies(study, fusion)
    names.sort(key=lambda name: -(lines[fusion, name, "fused"]["mean"] or 0))
    ran = [name for name in names if study.cells[fusion, name].runs]
    reference = next(iter(families(study, fusion)), None)
    return {
        "fusion": fusion,
        "label": FUSIONS.get(fusion, fusion),
        "reference": reference if reference in ran else None,
        "answer": answer(study, fusion, ran, reference if reference in ran else None),
        "paper": paper_says(study, fusion, origin),
        "best": paper_best(study, fusion, origin),
        "rows": [row(study, (fusion, name), lines, printed, clock) for name in names],
        "ran": ran,
        "pairs": {m: _pairs(study, fusion, m, ran) for m in measures_of(study)},
    }


def row(
    study: Study, key: tuple[str, str], lines: Lines, printed: Lines, clock: str
) -> dict[str, Any]:
    """One cell: means and half intervals, the paper's values, cost, seeds."""
    cell = study.cells[key]
    quantities = ("fused", *study.modalities, "gap")
    place = (NONE, key[1]) if is_unimodal(key[1]) else key
    own = {q: lines[*place, q] for q in quantities if (*place, q) in lines}
    first = next(iter(own.values()))
    costs = [seconds for run in cell.runs if (seconds := run["cost"].get(clock)) is not None]
    return {
        "s": key[1],
        "n": first["n_seeds"],
        "lost": first.get("n_diverged", 0),
        "trials": first["n_trials"],
        "trial": cell.trial,
        "v": {q: _level(line) for q, line in own.items() if line["mean"] is not None},
        "paper": {q: value for q in quantities if (value := _printed(study, key, q, printed))},
        "cost": round(statistics.mean(costs), 2) if costs else None,
        "seeds": _seeds(study, cell),
        "command": (cell.runs or cell.search)[0]["command"] if cell.runs or cell.search else "",
    }


def _level(line: Line) -> list[float | None]:
    """As the tables round it."""
    half = None if line["ci_low"] is None else (line["ci_high"] - line["ci_low"]) / 2
    return [float(fixed(line["mean"])), None if half is None else float(fixed(half))]


def _printed(study: Study, key: tuple[str, str], quantity: str, printed: Lines) -> list[Any] | None:
    """The paper's value, and whether a further run of ours would give it; its heads, not probes."""
    side = {study.strong: "strong", study.weak: "weak"}.get(quantity, quantity)
    place = ("", key[1], quantity) if is_unimodal(key[1]) else (*key, side)
    line = printed.get(place)
    if line is None or line["paper"] is None:
        return None
    return [line["paper"], line["paper_in_pi"]]


def _seeds(study: Study, cell: Cell) -> list[list[Any]]:
    """Seed, run id, best epoch, diverged, then fused and the probes in percent."""
    found = []
    for run in cell.runs:
        numbers = [measure(study, run, name, "probe") for name in ("fused", *study.modalities)]
        shown = [None if value is None else float(fixed(value)) for value in numbers]
        diverged = int(run["status"] == "diverged")
        found.append([run["seed"], run["run_id"], run["best_epoch"], diverged, *shown])
    return found


def _pairs(study: Study, fusion: str, name: str, ran: Sequence[str]) -> dict[str, Any]:
    """Every strategy minus every other, judged in the family of each possible reference.

    d: three numbers (mean, low, high in hundredths of a point) for each pair in the order of `ran`,
    first minus second; n: seeds of each, or of all. by: reference -> word (initials), p (0: below
    0.001) and further seeds (0: decided or unknown) of each strategy minus it, in order. Flat, for
    there are many.
    """
    judged: dict[str, dict[str, Verdict]] = {}
    for reference in ran:
        pairs = [(other, reference) for other in ran if other != reference]
        found = contrasts(study, fusion, name, pairs) if pairs else {}
        judged[reference] = {subject: v for (subject, _), v in found.items()}
    each = [judged[b].get(a) for a, b in combinations(ran, 2)]
    sizes = [v.n if v else 0 for v in each]
    return {
        "d": [x for v in each for x in _hundredths(v)],
        "n": sizes[0] if len(set(sizes)) == 1 else sizes,
        "by": {
            reference: {
                "word": "".join(v.word[0] if (v := found.get(s)) else "-" for s in ran),
                "p": [_p(found.get(s)) for s in ran],
                "more": [(v.more or 0) if (v := found.get(s)) else 0 for s in ran],
            }
            for reference, found in judged.items()
        },
    }


def _hundredths(v: Verdict | None) -> list[int | None]:
    ends = (v.mean, v.low, v.high) if v else (None, None, None)
    return [None if x is None else round(100 * float(fixed(x, digits=2))) for x in ends]


def _p(v: Verdict | None) -> float:
    shown = round(v.p, 3) if v and v.p >= 0.001 else 0
    return int(shown) if shown in (0, 1) else shown
