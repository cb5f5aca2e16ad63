"""Beyond the paper: modalities missing at test time, noise on one modality, utilization."""

from __future__ import annotations

from collections.abc import Callable

from miles_repro.report.measures import interval, measure
from miles_repro.report.names import place, stem, strategies, strategy_label
from miles_repro.report.provenance import Origin, interval_note, study_notes, study_tags
from miles_repro.report.table import NONE, Column, Sheet, Table, show
from miles_repro.selection import Record, Study

Reader = Callable[[Record], float | None]
Readers = dict[Column, Reader]

NOTES = {
    "missing": "Fused metric without the modalities named, their features replaced by zero or by "
    "the validation-set mean.",
    "noise": "Fused metric with Gaussian noise of so many standard deviations on one normalised "
    "input.",
    "utilization": "u of each modality and delta = |difference| (paper, Eq. 4, 5), test set.",
}
TITLES = {"missing": "Missing modalities", "noise": "Noise", "utilization": "Utilization"}


def robustness_sheet(study: Study, origin: Origin) -> Sheet:
    """One table per disturbance: fused test metric by fusion and strategy."""
    runs = [run for cell in study.cells.values() for run in cell.runs]
    whole: Readers = {("", "undisturbed"): lambda run: measure(study, run, "fused", "own")}
    tables = []
    for section in ("missing", "noise", "utilization"):
        readers = _utilization(runs) if section == "utilization" else _disturbed(runs, section)
        if readers:
            shown = readers if section == "utilization" else {**whole, **readers}
            tables.append(_table(study, section, shown))
    notes = [origin.note(), *study_notes(study)]
    return Sheet(f"robustness__{stem(study)}", f"Robustness: {place(study)}", tables, notes)


def _table(study: Study, section: str, readers: Readers) -> Table:
    leads: list[Column] = [("", "strategy"), ("", "fusion")]
    title = f"{TITLES[section]}, {place(study)}"
    table = Table(title, [*leads, *readers, ("", "n")], leads=len(leads))
    for fusion in study.fusions:
        for strategy in strategies(study, fusion):
            cell = study.cells[fusion, strategy]
            label = strategy_label(study, strategy)
            row = {leads[0]: label, leads[1]: fusion, ("", "n"): str(len(cell.runs))}
            for column, read in readers.items():
                numbers = {run["seed"]: read(run) for run in cell.runs}
                found = interval({seed: x for seed, x in numbers.items() if x is not None})
                digits = 2 if section == "utilization" else 1
                row[column] = show(found, digits=digits) if found else NONE
                table.data.append(
                    {
                        "table": "robustness",
                        **study_tags(study.dataset, study),
                        "fusion": fusion,
                        "strategy": strategy,
                        "section": section,
                        "condition": " ".join(column).strip(),
                        "mean": found.mean if found else None,
                        "ci_low": found.low if found else None,
                        "ci_high": found.high if found else None,
                        "n_seeds": len(cell.runs),
                    }
                )
            table.rows.append(row)
    table.notes = [interval_note(study.records), NOTES[section]]
    return table


def _disturbed(runs: list[Record], section: str) -> Readers:
    """Column -> how to read its number from a record; few modalities first."""
    conditions = {
        (name.count("+"), name, level)
        for run in runs
        for name, levels in run[section].items()
        for level in levels
    }
    lead = {"missing": "without ", "noise": "noise on "}[section]
    return {
        (lead + name.replace("+", ", "), level): _at(section, name, level)
        for _, name, level in sorted(conditions)
    }


def _at(section: str, name: str, level: str) -> Reader:
    def read(run: Record) -> float | None:
        value = run[section].get(name, {}).get(level, {}).get("metric")
        return None if value is None else 100 * value

    return read


def _utilization(runs: list[Record]) -> Readers:
    names = {name for run in runs for name in run["utilization"]["test"] or ()}
    ordered = sorted(names, key=lambda name: (name == "delta", name))
    return {("", n if n == "delta" else f"u {n}"): _used(n) for n in ordered}


def _used(name: str) -> Reader:
    return lambda run: (run["utilization"]["test"] or {}).get(name)
