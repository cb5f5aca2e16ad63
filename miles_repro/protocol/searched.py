"""The trials of every search: what was drawn, how it scored, which one won. No torch.

By validation numbers alone, as the choice itself; what was drawn is what differs among a cell's
trials, and the learning rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from miles_repro.trials import SEARCH_SEED

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One trial. values: drawn value by key; score: fused validation metric at the best epoch,
    None where it is not finite; diverged: its loss was not finite; best: the cell's winner."""

    dataset: str
    budget: str
    fusion: str
    strategy: str
    trial: int
    values: dict[str, Any]
    score: float | None
    best_epoch: int
    diverged: bool
    best: bool


def trial_rows(records: Iterable[Record]) -> list[Trial]:
    """Every ordinary trial with the search seed, by cell and number. Protocols do not mix: a cell
    has one group for each, told apart by what :func:`miles_repro.alike.protocol` compares."""
    from miles_repro.alike import protocol
    from miles_repro.selection import ordinary, select

    cells: defaultdict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        if record["seed"] == SEARCH_SEED and ordinary(record):
            names = [record[key] for key in ("dataset", "budget", "fusion", "strategy")]
            cells[(*names, protocol(record))].append(record)
    found = []
    for key in sorted(cells):
        cell, _ = select(cells[key])
        runs = sorted(cell.searched, key=lambda r: r["trial"])
        flat = [_settings(run) for run in runs]
        names = [k for k in flat[0] if k == "lr" or any(f.get(k) != flat[0][k] for f in flat)]
        for run, values in zip(runs, flat, strict=True):
            found.append(
                Trial(
                    dataset=cell.dataset,
                    budget=cell.budget,
                    fusion=cell.fusion,
                    strategy=cell.strategy,
                    trial=run["trial"],
                    values={k: values.get(k) for k in names},
                    score=run["val"]["fused"]["metric"],
                    best_epoch=run["best_epoch"],
                    diverged=run["status"] == "diverged",
                    best=run["trial"] == cell.trial,
                )
            )
    return found


def _settings(record: Record) -> dict[str, Any]:
    """Learning rate and the strategy's own values."""
    own = {k: v for k, v in record["config"]["strategy"].items() if k not in ("name", "_target_")}
    return {"lr": record["config"]["optimizer"]["lr"], **own}


def show_trials(records: Iterable[Record], budget: str | None = None) -> None:
    """Print a line per trial, the winner of each cell marked with a star."""
    rows = [row for row in trial_rows(records) if budget in (None, row.budget)]
    print(f"{'trial':>5}  {'val':>6}  {'epoch':>5}  drawn values (* wins by validation)")
    cell = None
    for row in rows:
        if cell != (row.dataset, row.budget, row.fusion, row.strategy):
            cell = (row.dataset, row.budget, row.fusion, row.strategy)
            print(" ".join(cell))
        score = f"{100 * row.score:6.2f}" if row.score is not None else "     –"
        values = "  ".join(f"{k} {_short(v)}" for k, v in row.values.items())
        star = "*" if row.best else " "
        end = "  diverged" if row.diverged else ""
        print(f"{row.trial:4}{star}  {score}  {row.best_epoch:5}  {values}{end}")
    print(f"{len(rows)} trials; trial 0 has the documented values, the others are drawn")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
