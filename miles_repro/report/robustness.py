"""Beyond the paper: a modality missing at test time, noise on one modality, utilization."""

from __future__ import annotations

from collections.abc import Callable

from miles_repro.report.comparison import heading, place, study_tags
from miles_repro.report.measures import interval, measure
from miles_repro.report.names import strategy_label, strategy_order
from miles_repro.report.provenance import Origin, runs_note
from miles_repro.report.table import NONE, Column, Sheet, Table, show
from miles_repro.selection import Record, Study, is_unimodal

Reader = Callable[[Record], float | None]


def robustness_sheet(study: Study, origin: Origin) -> Sheet:
    """Fused test metric under each disturbance, per fusion and strategy."""
    keys = [key for key in study.cells if not is_unimodal(key[1])]
    keys.sort(key=lambda key: (key[0], strategy_order(key[1])))
    runs = [run for key in keys for run in study.cells[key].runs]
    readers = _readers(runs)
    leads: list[Column] = [("", "strategy"), ("", "fusion")]
    title = heading(study.dataset, study, True)
    table = Table(title, [*leads, *readers, ("", "n")], leads=len(leads))
    for fusion, strategy in keys:
        cell = study.cells[fusion, strategy]
        row = {leads[0]: strategy_label(strategy), leads[1]: fusion, ("", "n"): str(len(cell.runs))}
        for column, read in readers.items():
            numbers = {run["seed"]: read(run) for run in cell.runs}
            found = interval({seed: x for seed, x in numbers.items() if x is not None})
            digits = 2 if column[0] == "utilization" else 1
            row[column] = show(found, digits=digits) if found else NONE
            table.data.append(
                {
                    "table": "robustness",
                    **study_tags(study.dataset, study),
                    "fusion": fusion,
                    "strategy": strategy,
                    "condition": " ".join(column).strip(),
                    "mean": found.mean if found else None,
                    "ci_low": found.low if found else None,
                    "ci_high": found.high if found else None,
                    "n_seeds": len(cell.runs),
                }
            )
        table.rows.append(row)
    table.notes = [
        "Fused test metric in percent, mean ± 95 % interval over n seeds.",
        "without: that modality's feature replaced by zero, or by its validation-set mean.",
        "noise: Gaussian noise of so many standard deviations on the normalised input.",
        "utilization: u of each modality and delta = |difference| (paper, Eq. 4, 5), test set.",
        runs_note(runs),
        origin.note(),
    ]
    name = f"robustness_{study.dataset}_{study.budget}"
    return Sheet(name, f"Missing and noisy modalities: {place(study)}", [table])


def _readers(runs: list[Record]) -> dict[Column, Reader]:
    """Column -> how to read its number from a record, for every condition some run has."""
    readers: dict[Column, Reader] = {("", "undisturbed"): lambda run: measure(run, "fused")}
    conditions = {
        (section, modality, level)
        for run in runs
        for section in ("missing", "noise")
        for modality, levels in run[section].items()
        for level in levels
    }
    for section, modality, level in sorted(conditions):
        group = f"without {modality}" if section == "missing" else f"noise on {modality}"
        readers[group, level] = _at(section, modality, level)
    names = {name for run in runs for name in run["utilization"]["test"] or ()}
    for name in sorted(names, key=lambda name: (name == "delta", name)):
        readers["utilization", name if name == "delta" else f"u {name}"] = _utilization(name)
    return readers


def _at(section: str, modality: str, level: str) -> Reader:
    def read(run: Record) -> float | None:
        value = run[section].get(modality, {}).get(level, {}).get("metric")
        return None if value is None else 100 * value

    return read


def _utilization(name: str) -> Reader:
    return lambda run: (run["utilization"]["test"] or {}).get(name)
