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
    "missing": "Fused metric without the modalities named, their features replaced by {level}.",
    "noise": "Fused metric with Gaussian noise of so many standard deviations on one normalised "
    "input.",
    "utilization": "u of each modality and delta = |difference| (paper, Eq. 4, 5), test set.",
}
REPLACED = {"zero": "zero", "mean": "validation mean"}
TITLES = {"missing": "Missing modalities", "noise": "Noise", "utilization": "Utilization"}


def robustness_sheet(study: Study, origin: Origin) -> Sheet:
    """One table per disturbance: fused test metric by fusion and strategy."""
    runs = [run for cell in study.cells.values() for run in cell.runs]
    whole: Readers = {("", "undisturbed"): lambda run: measure(study, run, "fused", "own")}
    tables = []
    for level in sorted({k for run in runs for levels in run["missing"].values() for k in levels}):
        readers = whole | _missing(runs, level)
        tables.append(_table(study, "missing", readers, REPLACED.get(level, level)))
    if noisy := _noise(runs):
        tables.append(_table(study, "noise", whole | noisy))
    if used := _utilization(runs):
        tables.append(_table(study, "utilization", used))
    notes = [origin.note(), *study_notes(study)]
    return Sheet(f"robustness__{stem(study)}", f"Robustness: {place(study)}", tables, notes)


def _table(study: Study, section: str, readers: Readers, level: str = "") -> Table:
    leads: list[Column] = [("", "strategy"), ("", "fusion")]
    title = f"{TITLES[section]}{f' ({level})' * bool(level)}, {place(study)}"
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
                        "condition": " ".join([*column, level]).strip(),
                        "mean": found.mean if found else None,
                        "ci_low": found.low if found else None,
                        "ci_high": found.high if found else None,
                        "n_seeds": len(cell.runs),
                    }
                )
            table.rows.append(row)
    table.notes = [interval_note(study.records), NOTES[section].format(level=level)]
    return table


def _missing(runs: list[Record], level: str) -> Readers:
    """Column -> how to read its number from a record; single modalities first."""
    names = {name for run in runs for name, levels in run["missing"].items() if level in levels}
    ordered = sorted(names, key=lambda name: (name.count("+"), name))
    return {("without", name.replace("+", ", ")): _at("missing", name, level) for name in ordered}


def _noise(runs: list[Record]) -> Readers:
    conditions = {
        (m, level) for run in runs for m, levels in run["noise"].items() for level in levels
    }
    return {(f"noise on {m}", level): _at("noise", m, level) for m, level in sorted(conditions)}


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
