"""8. A whole run on small feature vectors, and where its time goes."""

from __future__ import annotations

import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self
from unittest import mock

from bench.report import Goal, Section, Table
from bench.timing import Clock, Span
from bench.work import Work, compose, mlp, synthetic, synthetic_node
from miles_repro import loop, training
from miles_repro.records import RunRecord
from miles_repro.run import run

LIMIT = 0.6
MODALITIES, CLASSES, VALUES, EPOCHS = ("a", "b", "c"), 10, 64, 10
COMPOSING, REST = "composing", "the rest: reading, building, checking"
PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "training steps": ((loop, "train_epoch"),),
    "scoring, validation": ((loop, "score"), (loop.Fit, "_validate")),
    "probes, test evaluation": ((training, "results"),),
    "saving": (
        *((training.Training, "keep"), (training.Training, "save")),
        *((RunRecord, "write_config"), (RunRecord, "rewrite_rows"), (RunRecord, "finish")),
    ),
}
"""What is timed under which name. Nested calls count once, under the inner one's name."""
TEXT = """\
One MILES run of 10 epochs on 2,000 synthetic samples of three feature vectors of 64 values (1,600
for training, 200 each for validation and test; MLPs, concatenation, batches of 64), from its
overrides to its record. One process trains many such runs, so this is one after a warm-up run:
medians of wall time over the repetitions, with other seeds.
"""


class Profile:
    """Wall seconds by part while the context is open."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0
        self._patches = ExitStack()

    def __enter__(self) -> Self:
        for part, functions in PARTS.items():
            for owner, name in functions:
                timed = self.timed(part, getattr(owner, name))
                self._patches.enter_context(mock.patch.object(owner, name, timed))
        return self

    def __exit__(self, *error: object) -> None:
        self._patches.close()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._open.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._open.pop()

        return call

    def _switch(self) -> None:
        """Book the time since the last switch to the innermost open part."""
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def measure(work: Work) -> Section:
    folder, rows = work.folder(), work.size.feature_rows
    synthetic(folder / "data" / "bench", rows * 4 // 5, MODALITIES, CLASSES, (VALUES,))

    def one(seed: int) -> tuple[dict[str, float], Span]:
        overrides = (
            *("strategy=miles", "tracker=none", f"runtime.device={work.device}", "batch_size=64"),
            *(f"epochs={EPOCHS}", f"seed={seed}", f"runtime.runs_dir={folder / 'runs'}"),
            f"runtime.data_dir={folder / 'data'}",
        )
        node = synthetic_node("bench", MODALITIES, CLASSES, mlp(VALUES))
        with Profile() as profile:
            clock = Clock()
            config = profile.timed(COMPOSING, compose)(*overrides, dataset=node)
            run(config, "bench")
            span = clock.read()
        return dict(profile.seconds), span

    one(0)
    found = [one(seed) for seed in range(1, 1 + 3 * work.size.repeats)]
    wall = statistics.median(span.wall for _, span in found)
    table = Table(["part", "ms", "share"])
    for part in (COMPOSING, *PARTS, REST):
        values = [
            span.wall - sum(parts.values()) if part == REST else parts[part]
            for parts, span in found
        ]
        median = statistics.median(values)
        table.add(part, f"{1000 * median:.0f}", f"{100 * median / wall:.0f} %")
    table.add("all", f"{1000 * wall:.0f}", "100 %")
    cpu = statistics.median(span.cpu for _, span in found)
    table.add("all, CPU time", f"{1000 * cpu:.0f}", "")
    goals = []
    if rows >= 2000:
        goals.append(Goal("seconds of a run of 10 epochs on 2,000 feature vectors", wall, LIMIT))
    raw = {"runs": [parts | {"wall": span.wall, "cpu": span.cpu} for parts, span in found]}
    return Section("features", "A run on feature vectors", TEXT, [table], goals, raw)
