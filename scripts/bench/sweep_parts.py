"""A sweep in this process, and where each run's time goes: ``python -m bench.sweep_parts ...``.

The arguments are those of ``train.py -m``; the last line printed is JSON: a dictionary for each run
but the first, which warms up, and the last, after which the sweep ends.
"""

from __future__ import annotations

import functools
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self
from unittest import mock

from bench.timing import Clock, Span
from miles_repro import job, loop, training
from miles_repro.cli.train import main as train
from miles_repro.records import RunRecord

BEGINS = (sys.modules["hydra_plugins.miles_sweeper"], "_task")  # as Hydra made it, not as imported
"""A run lasts from the call of this to the next one."""
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "its configuration": (BEGINS, (sys.modules[job.__name__], "checked")),
    "training steps": ((loop, "train_epoch"),),
    "scoring, validation": ((loop, "score"), (loop.Fit, "_validate")),
    "probes, test evaluation": ((training, "results"),),
    "saving": (
        *((training.Training, "keep"), (training.Training, "save")),
        *((RunRecord, "write_config"), (RunRecord, "rewrite_rows"), (RunRecord, "finish")),
    ),
}
"""What is timed under which name. Nested calls count once, under the inner one's name."""
WALL, CPU = "wall", "cpu"


class Profile:
    """Wall seconds of each run by part, and its wall and CPU time, while the context is open."""

    def __init__(self) -> None:
        self.runs: list[dict[str, float]] = []
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0
        self._clock: Clock | None = None
        self._patches = ExitStack()

    def __enter__(self) -> Self:
        for part, functions in PARTS.items():
            for place in functions:
                timed = self._timed(part, getattr(*place), begins=place is BEGINS)
                self._patches.enter_context(mock.patch.object(*place, timed))
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def _timed(self, part: str, function: Callable[..., Any], begins: bool) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if begins:
                self._next()
            self._switch()
            self._open.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._open.pop()

        return call

    def _next(self) -> None:
        """Another run begins."""
        if self._clock is not None:
            span: Span = self._clock.read()
            self.runs.append({**self._seconds, WALL: span.wall, CPU: span.cpu})
        self._seconds.clear()
        self._clock = Clock()

    def _switch(self) -> None:
        """Book the time since the last switch to the innermost open part."""
        now = self._clock.read().wall if self._clock is not None else 0.0
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now


def main() -> int:
    sys.argv[1:] = ["-m", "hydra/launcher=in_process", *sys.argv[1:]]
    with Profile() as profile:
        status = train()
    print(json.dumps(profile.runs[1:]))
    return status


if __name__ == "__main__":
    sys.exit(main())
