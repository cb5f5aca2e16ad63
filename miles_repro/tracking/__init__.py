"""Mirrors of the run record in an experiment tracker.

The record on disk is the truth; a tracker shows the same numbers elsewhere. :func:`start` never
raises into training: trouble with the tracker is one line on stderr and the run goes on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from miles_repro.records import load_rows

HEADER = ("run_id", "dataset", "fusion", "strategy", "trial", "seed", "budget", "config", "command")
_said: set[str] = set()


class Tracker(Protocol):
    """What a run tells its tracker."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirror one row of ``metrics.jsonl`` (one epoch)."""

    def finish(self, summary: Mapping[str, Any] | None, error: str | None = None) -> None:
        """End the run: with its ``summary.json``, or with the line that says why it failed."""


class NoTracker:
    """Mirrors nothing and imports nothing."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Ignore the row."""

    def finish(self, summary: Mapping[str, Any] | None, error: str | None = None) -> None:
        """Ignore the end."""


def start(
    config: dict[str, Any],
    header: dict[str, Any],
    run_dir: Path,
    history: Sequence[Mapping[str, Any]],
) -> Tracker:
    """The tracker that ``config`` (the composed ``tracker`` group) asks for.

    ``header`` holds run_id, dataset, fusion, strategy, trial, seed, budget, config and command.
    ``history`` holds the rows already recorded: the mirror of a resumed run goes on after them.
    """
    if config.get("name", "none") == "none":
        return NoTracker()
    try:
        from miles_repro.tracking.wandb_run import open_run

        return open_run(config, header, Path(run_dir), history)
    except Exception as error:
        say("trouble", f"no mirror of this run, training goes on ({brief(error)})")
        return NoTracker()


def repeat(config: dict[str, Any], summary: Mapping[str, Any], run_dir: Path) -> None:
    """Mirror a record that was finished before, where a W&B sweep agent waits for its result.

    A sweep gives each of its runs an id of its own, so it cannot know that this one is done.
    """
    if os.environ.get("WANDB_SWEEP_ID"):
        header = {key: summary[key] for key in HEADER}
        start(config, header, run_dir, load_rows(run_dir)).finish(summary)


def say(topic: str, line: str) -> None:
    """Print a line on stderr: of each topic only the first, more would tell the same."""
    if topic not in _said:
        _said.add(topic)
        print(f"tracker: {line}", file=sys.stderr, flush=True)


def brief(error: BaseException) -> str:
    """The first line of an error, without any API key."""
    from miles_repro.tracking.connection import hide_key

    text = str(error).strip().splitlines()
    return hide_key(f"{type(error).__name__}: {text[0] if text else 'no message'}")
