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

from miles_repro.config import Config, build
from miles_repro.cost import commit
from miles_repro.records import load_rows

HEADER = (
    *("run_id", "dataset", "fusion", "strategy", "label", "family", "trial", "seed", "budget"),
    *("metric", "pinned", "config", "command"),
)
_said: set[str] = set()


class Tracker(Protocol):
    """What a run tells its tracker.

    ``conf/tracker/<name>.yaml`` names it: its ``_target_`` is called with ``(header, run_dir,
    history)`` and the file's other entries as keyword arguments. ``header`` has the keys of
    ``HEADER``, ``commit``, ``dirty`` and ``seeds`` (how many the budget gives a winner);
    ``history`` the rows already recorded: the mirror of a resumed run goes on after them.
    """

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirror one row of ``metrics.jsonl`` (one epoch)."""

    def finish(self, summary: Mapping[str, Any] | None, error: str | None = None) -> None:
        """End the run: with its ``summary.json``, or with the line that says why it failed."""


class NoTracker:
    """Mirrors nothing and imports nothing."""

    def __init__(self, *_: object) -> None:
        """Ignore the run."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Ignore the row."""

    def finish(self, summary: Mapping[str, Any] | None, error: str | None = None) -> None:
        """Ignore the end."""


class _Guarded:
    """A tracker that raises is left alone from then on: the run needs none."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def log(self, row: Mapping[str, Any]) -> None:
        """Mirror the row."""
        self._try("log", row)

    def finish(self, summary: Mapping[str, Any] | None, error: str | None = None) -> None:
        """End the mirror."""
        self._try("finish", summary, error)

    def _try(self, what: str, *args: Any) -> None:
        try:
            getattr(self._tracker, what)(*args)
        except Exception as error:
            self._tracker = NoTracker()
            say("trouble", f"the mirror of a run broke off, training goes on ({brief(error)})")


def start(
    node: Mapping[str, Any],
    header: Mapping[str, Any],
    run_dir: Path,
    history: Sequence[Mapping[str, Any]],
) -> Tracker:
    """The tracker that ``node`` (the composed ``tracker`` group) asks for, see :class:`Tracker`."""
    try:
        return _Guarded(build(node, header, Path(run_dir), history))
    except Exception as error:
        say("trouble", f"no mirror of this run, training goes on ({brief(error)})")
        return NoTracker()


def begin(
    config: Config, header: Mapping[str, Any], metric: str, history: Sequence[Mapping[str, Any]]
) -> Tracker:
    """The tracker of a run in training: ``header`` is its record's, ``metric`` its headline."""
    name, dirty = commit()
    own = {"metric": metric, "config": config.identity(), "seeds": config.budget.seeds}
    known = {**header, **own, "commit": name, "dirty": dirty}
    return start(config.tracker, known, config.run_dir, history)


def repeat(config: Config, summary: Mapping[str, Any]) -> None:
    """Mirror a record that was finished before, where a W&B sweep agent waits for its result.

    A sweep gives each of its runs an id of its own, so it cannot know that this one is done.
    """
    if os.environ.get("WANDB_SWEEP_ID"):
        header = header_of(summary, config.budget.seeds)
        start(config.tracker, header, config.run_dir, load_rows(config.run_dir)).finish(summary)


def header_of(summary: Mapping[str, Any], seeds: int | None = None) -> dict[str, Any]:
    """What a finished run told its tracker at its start."""
    code = {key: summary["environment"].get(key) for key in ("commit", "dirty")}
    return {**{key: summary[key] for key in HEADER}, **code, "seeds": seeds}


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
