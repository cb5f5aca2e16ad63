"""Clocks, interleaved repetitions, and ratios with their spread."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

WATCHED = (
    sys.executable,
    "-S",
    "-c",
    """\
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
open(sys.argv[1], "w").write(str(peak / 2 ** (20 if sys.platform == "darwin" else 10)))
sys.exit(status)
""",
)
"""``[*WATCHED, file, *command]`` runs the command and writes the peak memory of its largest
process, in MB. A small process starts it: a child of this one would report at least its size."""


@dataclass(frozen=True)
class Span:
    """Wall and CPU seconds of something. CPU time barely feels what else the machine does."""

    wall: float
    cpu: float


class Clock:
    """Time since it was made, of this process or (``children``) of those it waited for."""

    def __init__(self, children: bool = False) -> None:
        self._children = children
        self._wall, self._cpu = time.perf_counter(), self._cpu_now()

    def _cpu_now(self) -> float:
        if not self._children:
            return time.process_time()
        times = os.times()
        return times.children_user + times.children_system

    def read(self) -> Span:
        return Span(time.perf_counter() - self._wall, self._cpu_now() - self._cpu)


class Laps:
    """Spans between calls: an epoch callback. ``first``: time the way to the first call too.

    The first epoch warms caches and allocators up, so it is usually left out.
    """

    def __init__(self, first: bool = False) -> None:
        self.spans: list[Span] = []
        self._clock = Clock() if first else None

    def pause(self) -> None:
        """Time nothing until the next call."""
        self._clock = None

    def __call__(self, *unused: object) -> None:
        if self._clock is not None:
            self.spans.append(self._clock.read())
        self._clock = Clock()


def interleaved(cases: Mapping[str, Callable[[], list[Span]]], repeats: int) -> Series:
    """Run every case ``repeats`` times in turn, each round in the reverse order of the last.

    A case returns the spans it measured; slow drifts of the machine fall on all cases alike.
    """
    spans: dict[str, list[list[Span]]] = {name: [] for name in cases}
    for i in range(repeats):
        names = list(cases) if i % 2 == 0 else list(cases)[::-1]
        for name in names:
            gc.collect()
            spans[name].append(cases[name]())
    return Series(spans)


@dataclass(frozen=True)
class Ratio:
    """Median of per-repetition ratios, with the smallest and the largest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Series:
    """Spans by case and repetition."""

    spans: Mapping[str, list[list[Span]]]

    def raw(self) -> dict[str, list[list[float]]]:
        """CPU seconds by case and repetition, rounded, for the record."""
        return {
            case: [[round(s.cpu, 5) for s in repetition] for repetition in repetitions]
            for case, repetitions in self.spans.items()
        }

    def median(self, case: str) -> Span:
        """Median wall and CPU time over all spans of a case."""
        every = [s for repetition in self.spans[case] for s in repetition]
        return Span(
            statistics.median(s.wall for s in every), statistics.median(s.cpu for s in every)
        )

    def ratio(self, case: str, base: str, clock: str = "cpu") -> Ratio:
        """Time of ``case`` over that of ``base``: medians within each repetition, divided."""

        def medians(name: str) -> list[float]:
            return [statistics.median(getattr(s, clock) for s in r) for r in self.spans[name]]

        return Ratio.of([a / b for a, b in zip(medians(case), medians(base), strict=True)])


def command(args: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Span:
    """Time a command from start to end. ``env``: its whole environment, if not this process's.

    Raises:
        RuntimeError: it fails; with the end of what it printed.
    """
    clock = Clock(children=True)
    done = subprocess.run(
        [str(a) for a in args],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    span = clock.read()
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))} failed:\n{done.stdout[-2000:]}")
    return span
