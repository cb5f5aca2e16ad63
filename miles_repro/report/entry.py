"""Tables of results: our numbers with intervals, the paper's beside them where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from miles_repro.paper import TRIALS, Printed
from miles_repro.report.measures import Values, interval
from miles_repro.report.provenance import cell_data, diverged, interval_note, runs_note
from miles_repro.report.table import NONE, Column, Table, fixed, show
from miles_repro.selection import Cell
from miles_repro.stats import Interval, predict

CHECK_NOTE = (
    "in PI: whether the paper's one run lies where 95 % of further runs of ours would (prediction "
    f"interval); or luckiest: where the largest of {TRIALS} would. †: see results/paper/errata.csv."
)


@dataclass(frozen=True)
class Entry:
    """head: column (group) it stands under; cell: the runs behind it, None where none has run."""

    quantity: str
    head: str
    numbers: Values
    printed: Printed | None = None
    cell: Cell | None = None

    @property
    def found(self) -> Interval | None:
        return interval(self.numbers)

    @property
    def check(self) -> str:
        """Whether the published run is one of ours: "inside" one run's prediction interval, inside
        that of the "luckiest" of the paper's trials, "outside" both, "no PI" without an interval,
        '' where either number is missing."""
        if not self.numbers or self.printed is None:
            return ""
        numbers = list(self.numbers.values())
        inside = predict(numbers).contains(self.printed.value)
        if inside is None:
            return "no PI"
        lucky = predict(numbers, best_of=TRIALS).contains(self.printed.value)
        return "inside" if inside else "luckiest" if lucky else "outside"

    def columns(self, paper: bool) -> list[Column]:
        if not paper:
            return [("", self.head)]
        return [(self.head, "paper"), (self.head, "ours"), (self.head, "in PI")]

    def ours(self, paper: bool) -> Column:
        """The column our number stands in."""
        return (self.head, "ours") if paper else ("", self.head)

    def texts(self, paper: bool) -> dict[Column, str]:
        signed = self.quantity == "gap"
        # A cell that has run may lack a number: unimodal models have no fused metric.
        ours = NONE if self.cell and self.found is None else show(self.found, sign=signed)
        if self.cell and not self.cell.runs:
            ours = "search only"
        if not paper:
            return {self.ours(paper): ours}
        texts = {self.ours(paper): ours, (self.head, "in PI"): self.check or NONE}
        if self.printed:
            value = fixed(self.printed.value, sign=signed)
            texts[self.head, "paper"] = value + "†" * bool(self.printed.erratum)
        return texts

    def data(self) -> dict[str, Any]:
        """The numbers for the CSV file."""
        found = self.found
        return {
            "quantity": self.quantity,
            "paper": self.printed.value if self.printed else None,
            "mean": found.mean if found else None,
            "ci_low": found.low if found else None,
            "ci_high": found.high if found else None,
            "paper_in_pi": self.check,
        }


@dataclass(frozen=True)
class Row:
    """One cell's line: what it is called in the table and in the CSV file, and its numbers."""

    labels: dict[str, str]
    tags: dict[str, str]
    cell: Cell | None
    entries: list[Entry]


def entry_table(title: str, rows: Sequence[Row], tags: dict[str, Any], *, paper: bool) -> Table:
    """Rows with the same labels and entries, followed by n and trials; `tags` lead every
    line of the CSV file."""
    leads: list[Column] = [("", label) for label in rows[0].labels]
    middle = [column for entry in rows[0].entries for column in entry.columns(paper)]
    table = Table(title, [*leads, *middle, ("", "n"), ("", "trials")], leads=len(leads))
    for row in rows:
        texts: dict[Column, str] = {("", name): text for name, text in row.labels.items()}
        if row.cell:
            lost = diverged(row.cell)
            texts["", "n"] = f"{len(row.cell.runs)}" + f" ({lost} diverged)" * bool(lost)
            texts["", "trials"] = str(row.cell.trials)
        traced = cell_data(row.cell)
        for entry in row.entries:
            texts |= entry.texts(paper)
            table.data.append({**tags, **row.tags, **entry.data(), **traced})
        table.rows.append(texts)
    return table


def result_notes(rows: Sequence[Row], *own: str, paper: bool = False) -> list[str]:
    """The notes under a table of results; `own` notes follow the first."""
    runs = [run for row in rows if row.cell for run in row.cell.searched]
    if not runs:
        return ["No run has finished."]
    return [interval_note(runs), *own, *[CHECK_NOTE] * paper, runs_note(runs)]
