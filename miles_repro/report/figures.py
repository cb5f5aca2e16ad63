"""From records to figures: which runs each figure shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miles_repro.paper import FUSIONS, MODALITIES, MUS, TAUS, published
from miles_repro.plots import canvas, comparison, dynamics
from miles_repro.plots.canvas import Line
from miles_repro.plots.comparison import Difference, Track
from miles_repro.records import disk_errors
from miles_repro.report.ablations import Curve, curves
from miles_repro.report.contrasts import (
    as_interval,
    contrasts,
    families,
    family_label,
    measure_label,
    measures_of,
)
from miles_repro.report.measures import interval, numeric, values
from miles_repro.report.names import metric_label, place, stem, strategies, strategy_label
from miles_repro.report.provenance import Origin
from miles_repro.report.ranks import rank_groups, ranks
from miles_repro.selection import Record, Study
from miles_repro.stats import Interval, Ranks
from miles_repro.verdicts import Verdict

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
        alone = [("concat", f"unimodal_{m}") for m in study.modalities]
        cells = [study.cells[key] for key in [*keys, *alone] if key in study.cells]
        found += [(cell.runs or cell.search)[0] for cell in cells]
    return found


def pictures(studies: Sequence[Study], rows: Rows, origin: Origin) -> list[Picture]:
    """Every figure the records allow."""
    found = []
    for study in studies:
        found += _dynamics(study, rows)
        found += _forests(study)
        found += _costs(study)
        for number, parameter in ((4, "tau"), (5, "mu")):
            found += _sensitivity(study, number, parameter, origin)
    for title, group in rank_groups(studies).items():
        average = ranks(group)
        if average:
            found.append(_ranks(title, group, average))
    return found


def _ranks(title: str, group: Sequence[Study], average: Ranks) -> Picture:
    named = {strategy_label(group[0], k): v for k, v in average.per_block.items()}
    figure = comparison.critical_difference(
        replace(average, per_block=named), title=f"Average ranks: {title}"
    )
    caption = (
        f"{title}: average rank by fused test metric; a bar joins strategies that Nemenyi's test "
        "does not separate."
    )
    one = len(group) == 1
    name = stem(group[0]) if one else f"{len(group)}-data-sets__{group[0].budget}"
    return Picture(f"ranks__{name}", caption, figure)


def _dynamics(study: Study, rows: Rows) -> list[Picture]:
    rows = {
        run["run_id"]: [row for row in rows.get(run["run_id"], ()) if _drawable(row)]
        for run in shown_runs([study])
    }
    runs = {run["strategy"]: run for run in shown_runs([study]) if rows[run["run_id"]]}
    metric = metric_label(study)
    found = []
    miles = runs.get("miles")
    tau, mu = (numeric(miles, "strategy", key) if miles else None for key in ("tau", "mu"))
    if miles and tau is not None and mu is not None:
        title = f"MILES on {place(study)}: concatenation, seed {miles['seed']}, τ {tau:g}, μ {mu:g}"
        figure = dynamics.dynamics(
            rows[miles["run_id"]],
            title=title,
            modalities=study.modalities,
            metric=metric,
            tau=tau,
        )
        caption = (
            f"{title}; run {miles['run_id']}. In the manner of the paper's Fig. 2; shaded epochs "
            "trained with a reduced learning rate."
        )
        found.append(Picture(f"dynamics__{stem(study)}", caption, figure))
    if "vanilla" in runs:
        lines = _vanilla_lines(study, runs, rows)
        title = f"Vanilla and unimodal training on {place(study)}"
        figure = dynamics.learning_curves(lines, title=title, metric=metric)
        caption = (
            f"{title}: validation metric, seed {runs['vanilla']['seed']}, as in the paper's Fig. "
            "1; dashed: a model of that modality alone."
        )
        found.append(Picture(f"curves__{stem(study)}", caption, figure))
    return found


def _drawable(row: Mapping[str, Any]) -> bool:
    """A foreign record's epochs may lack metrics or rates."""
    return "val" in row and None not in row.get("lr", {"": None}).values()


def _vanilla_lines(study: Study, runs: Mapping[str, Record], rows: Rows) -> list[Line]:
    own = rows[runs["vanilla"]["run_id"]]
    epochs = [row["epoch"] for row in own]
    colors = {k: c for k, c in canvas.head_colors(study.modalities).items() if k in own[0]["val"]}
    lines = [
        Line(
            head if head == "fused" else f"{head} head",
            epochs,
            dynamics.head_metric(own, head),
            color,
        )
        for head, color in colors.items()
    ]
    for modality in study.modalities:
        run = runs.get(f"unimodal_{modality}")
        if run:
            alone = rows[run["run_id"]]
            numbers = dynamics.head_metric(alone, modality)
            epochs = [row["epoch"] for row in alone]
            lines.append(Line(f"{modality} alone", epochs, numbers, colors[modality], "--"))
    return lines


def _forests(study: Study) -> list[Picture]:
    """Paired differences: a figure per fusion and family, a panel per measure."""
    found = []
    for fusion in study.fusions:
        for pivot, pairs in families(study, fusion).items():
            judged = {m: contrasts(study, fusion, m, pairs) for m in measures_of(study)}
            if not all(judged.values()):
                continue
            panels = {
                measure_label(study, m): (
                    [_difference(study, pivot, *one) for one in v.items()],
                    study.margin(m),
                )
                for m, v in judged.items()
            }
            sizes = sorted({v.n for verdicts in judged.values() for v in verdicts.values()})
            seeds = " to ".join(dict.fromkeys((str(sizes[0]), str(sizes[-1]))))
            kind = family_label(study, pivot, pairs)
            title = f"{kind}: {place(study)}, {FUSIONS.get(fusion, fusion)}"
            footnote = f"n {seeds} pairs; bar: 95 % anytime-valid; band: equal; colour: Holm"
            figure = comparison.forest(panels, title=title, footnote=footnote)
            caption = (
                f"{title}. Mean over {seeds} paired decision seeds; bars: 95 % anytime-valid "
                "intervals, uncorrected; coloured where decided (Holm); band: equal."
            )
            name = f"contrasts__{stem(study)}__{fusion}__{pivot}"
            found.append(Picture(name, caption, figure))
    return found


def _difference(study: Study, pivot: str, pair: tuple[str, str], v: Verdict) -> Difference:
    (other,) = (name for name in pair if name != pivot)
    return Difference(strategy_label(study, other), as_interval(v), v.word)


def _costs(study: Study) -> list[Picture]:
    kind = clock(study)
    key = {"CPU": "cpu_s", "wall": "wall_s"}[kind]
    panels: dict[str, dict[str, list[float]]] = {}
    for fusion in study.fusions:
        for strategy in strategies(study, fusion):
            cell = study.cells[fusion, strategy]
            seconds = [run["cost"][key] for run in cell.runs if run["cost"].get(key)]
            if seconds:
                panel = panels.setdefault(FUSIONS.get(fusion, fusion), {})
                panel[strategy_label(study, strategy)] = seconds
    if not panels:
        return []
    title = f"Cost: {place(study)}"
    figure = comparison.dots(panels, title=title, xlabel=f"{kind} time of one run (s); bar: median")
    caption = f"{title}: {kind} time of each decision run, bar: median; rough on a busy machine."
    return [Picture(f"cost__{stem(study)}", caption, figure)]


def clock(study: Study) -> str:
    """CPU time where all ran on CPUs: it hardly feels what else the machine did."""
    devices = {run["environment"].get("device") for run in study.records}
    return "CPU" if devices == {"cpu"} else "wall"


def _sensitivity(study: Study, number: int, parameter: str, origin: Origin) -> list[Picture]:
    panels: dict[str, list[Track]] = {}
    columns = 2
    for fusion, label in FUSIONS.items():
        found = curves(study, fusion, parameter)
        for one in found:
            sizes = sorted({len(cell.runs) for cell in one.cells.values()})
            seeds = "-".join(dict.fromkeys((str(sizes[0]), str(sizes[-1]))))
            panels[f"ours, {label} ({one.fixed}; n {seeds}, band 95 %)"] = [
                _track(name, _our_values(study, one, name), study)
                for name in ("fused", "strong", "weak")
            ]
        if found:
            columns = max(columns, len(found) + 1)
            panels[f"paper, {label}, LUMA"] = [
                _track(name, _paper_values(number, fusion, name), None)
                for name in ("fused", "strong", "weak")
            ]
    if not panels:
        return []
    title = f"MILES along {parameter}: {place(study)}, beside the paper's LUMA"
    figure = comparison.sensitivity(panels, title=title, parameter=parameter, columns=columns)
    caption = f"{title}. Bands: 95 % intervals over seeds; the paper has single runs."
    return [Picture(f"{parameter}__{stem(study)}", caption, figure)]


def _track(name: str, found: Mapping[float, Interval | None], study: Study | None) -> Track:
    known = {setting: value for setting, value in found.items() if value is not None}
    if name == "fused":
        return Track(name, known)
    modality = (study.modalities if study else MODALITIES["luma"])[-(name == "weak")]
    return Track(f"{modality} ({name})", known)


def _our_values(study: Study, curve: Curve, quantity: str) -> dict[float, Interval | None]:
    return {
        float(name): interval(values(study, cell, quantity, "own"))
        for name, cell in curve.cells.items()
    }


def _paper_values(number: int, fusion: str, quantity: str) -> dict[float, Interval | None]:
    found: dict[float, Interval | None] = {}
    for name in TAUS if number == 4 else MUS:
        printed = published(number, "luma", fusion, "miles", quantity, name)
        if printed:
            found[float(name)] = Interval(printed.value, None, None, 1)
    return found
