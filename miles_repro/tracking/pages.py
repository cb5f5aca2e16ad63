"""What the W&B reports show: every table of the report on one page, and the runs behind it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from miles_repro.report.names import STAND_IN

REPORTED = ("winner", "decision")
"""Job types whose runs the report's means are over; searches and ablations stay apart."""


@dataclass(frozen=True)
class Page:
    """tables: names of the logged tables; jobs: job types of the runs below them, ``where``:
    their configuration, ``group``: configuration keys they are grouped by."""

    title: str
    text: str
    tables: tuple[str, ...]
    jobs: tuple[str, ...] = REPORTED
    where: dict[str, list[Any]] = field(default_factory=dict)
    group: tuple[str, ...] = ("dataset", "budget", "fusion", "strategy")


def pages(logged: Iterable[str]) -> list[Page]:
    """A page for each table of the paper, one for each data set and budget
    (``contrasts__smnist_mini__mini``), one for the tables over all data sets."""
    left = list(dict.fromkeys(logged))
    paper = [_paper(number, left) for number in _PAPER]
    left = [name for name in left if name not in {f"table{number}" for number in _PAPER}]
    stems = dict.fromkeys(name.partition("__")[2] for name in left if name.count("__") >= 2)
    studies = [_study(stem, [n for n in left if n.partition("__")[2] == stem]) for stem in stems]
    rest = tuple(name for name in left if name.count("__") < 2)
    text = "The paper's claims, average ranks and whatever else spans data sets."
    over_all = [Page("All data sets", text, rest)] if rest else []
    return [*over_all, *studies, *paper]


def _study(stem: str, tables: Sequence[str]) -> Page:
    name, _, budget = stem.rpartition("__")
    where = {"dataset": [name.removesuffix(f"-{STAND_IN}")], "budget": [budget]}
    text = "Every strategy that has run: scores, paired differences, instruments, robustness."
    return Page(f"{name}, budget {budget}", text, tuple(tables), where=where)


_FUSED = "Score of the fused prediction and of each modality's own head, and the gap between heads."
_VARIED = "MILES with {} varied and everything else at its chosen value."
_PAPER: dict[int, tuple[str, str, tuple[str, ...], dict[str, list[Any]], str]] = {
    1: (
        "unimodal models",
        "Each modality trained alone: what a head inside a multimodal model could reach.",
        REPORTED,
        {"family": ["unimodal"]},
        "",
    ),
    2: ("balancing strategies, concatenation", _FUSED, REPORTED, {"fusion": ["concat"]}, ""),
    3: ("balancing strategies, summation", _FUSED, REPORTED, {"fusion": ["sum"]}, ""),
    **{
        number: (what, _VARIED.format(what), ("ablation",), {"strategy": ["miles"]}, key)
        for number, what, key in (
            (4, "the threshold tau", "strategy/tau"),
            (5, "the factor mu", "strategy/mu"),
            (6, "the source of the metric", "strategy/source"),
        )
    },
}


def _paper(number: int, logged: Sequence[str]) -> Page:
    what, text, jobs, where, key = _PAPER[number]
    tables = tuple(name for name in logged if name == f"table{number}")
    group = ("dataset", "budget", "fusion", key or "strategy")
    return Page(f"Table {number}: {what}", text, tables, jobs, where, group)
