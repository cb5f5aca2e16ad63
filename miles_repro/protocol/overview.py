"""Where a tree of runs stands: how many of each state per cell. No torch."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miles_repro.records import (
    CONFIG,
    ERROR,
    Glances,
    Ignored,
    last_error,
    printable,
    read_regular,
    run_folders,
    status_of,
)

STATES = ("done", "diverged", "running", "failed", "unfinished")
Cell = tuple[str, str, str, str]
"""(dataset, budget, fusion, strategy)"""


@dataclass
class Overview:
    """trials: cell -> numbers of trials with a finished run; failures: error files; ignored:
    what could not be read.
    """

    states: defaultdict[Cell, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    trials: defaultdict[Cell, set[int]] = field(default_factory=lambda: defaultdict(set))
    failures: list[Path] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)

    @property
    def total(self) -> Counter[str]:
        return sum(self.states.values(), Counter())


def look(runs_dir: Path, budget: str | None = None) -> Overview:
    """Read the state of every run below ``runs_dir``, or of one budget's."""
    found, glances = Overview(), Glances(runs_dir)
    for folder in run_folders(runs_dir, found.ignored):
        done = glances.at(folder, found.ignored)
        state = done.status if done else status_of(folder)
        name = done.budget if done else _budget(folder)
        if budget is not None and name != budget:
            continue
        dataset, fusion, strategy = folder.parts[-4:-1]
        cell = (dataset, name, fusion, strategy)
        found.states[cell][state] += 1
        if done:
            found.trials[cell].add(done.trial)
        elif state == "failed":
            found.failures.append(folder / ERROR)
    glances.keep()
    return found


def _budget(folder: Path) -> str:
    try:
        config: dict[str, Any] = json.loads(read_regular(folder / CONFIG))
        return printable(config["budget"]["name"])[:20]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # cut short by a kill
        return "?"


def show(found: Overview) -> None:
    """Print a line per cell, then every failure with its log's place."""
    head = "".join(f"{state:>11}" for state in STATES)
    print(f"{'data set':14}{'budget':8}{'fusion':9}{'strategy':20}{'trials':>7}{head}")
    for cell in sorted(found.states):
        dataset, budget, fusion, strategy = cell
        numbers = "".join(f"{found.states[cell][state] or '-':>11}" for state in STATES)
        trials = len(found.trials[cell])
        print(f"{dataset:14}{budget:8}{fusion:9}{strategy:20}{trials:7}{numbers}")
    for path in found.failures:
        place = path.parent.relative_to(path.parents[4])
        print(f"failed: {place}: {last_error(path.parent)} ({path})")
    print(", ".join(f"{found.total[state]} {state}" for state in STATES))
