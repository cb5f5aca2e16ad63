"""From records to figures: which runs each figure shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miles_repro.plots import canvas, comparison, dynamics
from miles_repro.plots.canvas import BLACK, BLUE, RED, Line
from miles_repro.plots.comparison import Point, Track
from miles_repro.records import disk_errors
from miles_repro.report.ablations import MU, TAU, curve
from miles_repro.report.comparison import place
from miles_repro.report.measures import interval, values
from miles_repro.report.names import (
    FUSIONS,
    metric_label,
    strategy_kind,
    strategy_label,
    strategy_order,
)
from miles_repro.report.provenance import Origin
from miles_repro.report.published import published
from miles_repro.report.ranks import rank_groups, ranks
from miles_repro.selection import Cell, Record, Study, is_unimodal, setting
from miles_repro.stats import Interval, Ranks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Run id -> the lines of its metrics.jsonl."""


@dataclass(frozen=True)
class Picture:
    """A figure, its file stem, and the words for those who do not see it."""

    name: str
    caption: str
    figure: Figure

    def write(self, folder: Path) -> list[Path]:
        with disk_errors(folder):
            return canvas.save(self.figure, folder / self.name)


def shown_runs(studies: Sequence[Study]) -> list[Record]:
    """The runs whose epochs the dynamics figures show: the first seed of MILES and of vanilla with
    concatenation, and of each unimodal model, per study."""
    keys = [("concat", "miles"), ("concat", "vanilla")]
    found = []
    for study in studies:
        alone = [("concat", f"unimodal_{m}") for m in (study.strong, study.weak)]
        found += [study.cells[key].runs[0] for key in [*keys, *alone] if key in study.cells]
    return found


def pictures(studies: Sequence[Study], rows: Rows, origin: Origin) -> list[Picture]:
    """Every figure the records allow."""
    found = []
    for study in studies:
        found += _dynamics(study, rows)
        found += _scatters(study)
        for number, parameter in ((4, "tau"), (5, "mu")):
            found += _sensitivity(study, number, parameter, origin)
    for title, group in rank_groups(studies).items():
        average = ranks(group)
        if average:
            found.append(_ranks(title, average))
    return found


def _ranks(title: str, average: Ranks) -> Picture:
    named = {strategy_label(name): found for name, found in average.per_block.items()}
    figure = comparison.critical_difference(
        replace(average, per_block=named), title=f"Average ranks: {title}"
    )
    caption = (
        f"{title}: average rank by fused test metric; a bar joins strategies that Nemenyi's test "
        "does not separate."
    )
    stem = re.sub(r"\W+", "_", title.lower().replace("budget ", ""))
    return Picture(f"ranks_{stem}", caption, figure)


def _stem(study: Study) -> str:
    return f"{study.dataset}_{study.budget}"


def _dynamics(study: Study, rows: Rows) -> list[Picture]:
    runs = {run["strategy"]: run for run in shown_runs([study]) if rows.get(run["run_id"])}
    metric = metric_label(study)
    found = []
    miles = runs.get("miles")
    if miles:
        tau = setting(miles, "strategy", "tau")
        mu = setting(miles, "strategy", "mu")
        title = f"MILES on {place(study)}: concatenation, seed {miles['seed']}, τ {tau:g}, μ {mu:g}"
        figure = dynamics.dynamics(
            rows[miles["run_id"]],
            title=title,
            strong=study.strong,
            weak=study.weak,
            metric=metric,
            tau=tau,
        )
        caption = (
            f"{title}; run {miles['run_id']}. In the manner of the paper's Fig. 2; shaded epochs "
            "trained with a reduced learning rate."
        )
        found.append(Picture(f"dynamics_{_stem(study)}", caption, figure))
    if "vanilla" in runs:
        lines = _vanilla_lines(study, runs, rows)
        title = f"Vanilla and unimodal training on {place(study)}"
        figure = dynamics.learning_curves(lines, title=title, metric=metric)
        caption = f"{title}: validation metric, first seed, in the manner of the paper's Fig. 1."
        found.append(Picture(f"curves_{_stem(study)}", caption, figure))
    return found


def _vanilla_lines(study: Study, runs: Mapping[str, Record], rows: Rows) -> list[Line]:
    own = rows[runs["vanilla"]["run_id"]]
    epochs = [row["epoch"] for row in own]
    colors = {"fused": BLACK, study.strong: BLUE, study.weak: RED}
    lines = [
        Line(
            head if head == "fused" else f"{head} head",
            epochs,
            dynamics.head_metric(own, head),
            color,
        )
        for head, color in colors.items()
    ]
    for modality in (study.strong, study.weak):
        run = runs.get(f"unimodal_{modality}")
        if run:
            alone = rows[run["run_id"]]
            numbers = dynamics.head_metric(alone, modality)
            epochs = [row["epoch"] for row in alone]
            lines.append(Line(f"{modality} alone", epochs, numbers, colors[modality], "--"))
    return lines


def _scatters(study: Study) -> list[Picture]:
    gap: dict[str, list[Point]] = {}
    cost: dict[str, list[Point]] = {}
    for fusion in study.fusions:
        strategies = sorted(
            (s for f, s in study.cells if f == fusion and not is_unimodal(s)), key=strategy_order
        )
        for strategy in strategies:
            cell = study.cells[fusion, strategy]
            fused, between = interval(values(cell, "fused")), interval(values(cell, "gap"))
            seconds = _seconds(cell, _clock(study))
            name, kind = strategy_label(strategy), strategy_kind(strategy)
            panel = FUSIONS.get(fusion, fusion)
            if fused and between:
                gap.setdefault(panel, []).append(Point(name, kind, between, fused))
            if fused and seconds:
                cost.setdefault(panel, []).append(Point(name, kind, seconds, fused))
    metric = metric_label(study)
    found = []
    if gap:
        figure = comparison.scatter(
            gap,
            title=f"Gap against fused {metric}: {place(study)}",
            xlabel=f"gap {study.strong} - {study.weak} (points)",
            ylabel=f"fused test {metric} (%)",
            zero=True,
        )
        caption = (
            f"{place(study)}: gap between the unimodal heads against the fused {metric}; bars: "
            "95 % intervals over seeds."
        )
        found.append(Picture(f"gap_{_stem(study)}", caption, figure))
    if cost:
        figure = comparison.scatter(
            cost,
            title=f"Cost against fused {metric}: {place(study)}",
            xlabel=f"{_clock(study)} time of one run (s)",
            ylabel=f"fused test {metric} (%)",
        )
        caption = (
            f"{place(study)}: mean {_clock(study)} time of the selected runs against the fused "
            f"{metric}; times from shared machines are rough."
        )
        found.append(Picture(f"cost_{_stem(study)}", caption, figure))
    return found


def _clock(study: Study) -> str:
    """CPU time where all ran on CPUs: it hardly feels what else the machine did."""
    devices = {run["environment"]["device"] for run in study.records}
    return "CPU" if devices == {"cpu"} else "wall"


def _seconds(cell: Cell, clock: str) -> Interval | None:
    """Mean time of a run, without an interval: times of a shared machine are no sample."""
    key = {"CPU": "cpu_s", "wall": "wall_s"}[clock]
    found = [run["cost"][key] for run in cell.runs if run["cost"].get(key)]
    return Interval(sum(found) / len(found), None, None, len(found)) if found else None


def _sensitivity(study: Study, number: int, parameter: str, origin: Origin) -> list[Picture]:
    panels: dict[str, list[Track]] = {}
    for fusion, label in FUSIONS.items():
        found = curve(study, fusion, parameter)
        if found is None:
            continue
        panels[f"ours, {label} ({found.fixed})"] = [
            _track(
                name, {float(k): interval(values(c, name)) for k, c in found.cells.items()}, study
            )
            for name in ("fused", "strong", "weak")
        ]
        panels[f"paper, {label}, LUMA"] = [
            _track(name, _paper_values(number, fusion, name), None)
            for name in ("fused", "strong", "weak")
        ]
    if not panels:
        return []
    title = f"MILES along {parameter}: {place(study)}, beside the paper's LUMA"
    figure = comparison.sensitivity(panels, title=title, parameter=parameter, columns=2)
    caption = f"{title}. Bars: 95 % intervals over seeds; the paper has single runs."
    return [Picture(f"{parameter}_{_stem(study)}", caption, figure)]


def _track(name: str, found: Mapping[float, Interval | None], study: Study | None) -> Track:
    known = {setting: value for setting, value in found.items() if value is not None}
    if name == "fused":
        return Track(name, known)
    modality = getattr(study, name) if study else {"strong": "audio", "weak": "image"}[name]
    return Track(f"{modality} ({name})", known)


def _paper_values(number: int, fusion: str, quantity: str) -> dict[float, Interval | None]:
    found: dict[float, Interval | None] = {}
    for name in TAU if number == 4 else MU:
        printed = published(number, "luma", fusion, "miles", quantity, name)
        if printed:
            found[float(name)] = Interval(printed.value, None, None, 1)
    return found
