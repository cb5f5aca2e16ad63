"""Progress of a long command: a rich bar on a terminal, plain lines with an estimate elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from miles_repro.machine import duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

PLAIN_EVERY_S = 5.0


class Progress:
    """``with Progress("cremad: video", total) as bar: bar.advance(n)``; writes to stderr.

    ``done`` counts what an earlier, interrupted command had finished: the estimate of what is
    left rests only on what this one did.
    """

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self.title, self.total, self.at = title, total, done
        self._first = done
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._begin = self._said = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.at)
        elif self.at:
            self._line(f"{self.at:,} of {self.total:,} were done before; going on from there")
        return self

    def advance(self, n: int) -> None:
        self.at += n
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.at)
            return
        now = time.monotonic()
        if now - self._said >= PLAIN_EVERY_S and self.at < self.total:
            self._said = now
            left = (now - self._begin) / (self.at - self._first) * (self.total - self.at)
            share = f"{self.at:,} of {self.total:,} ({self.at / self.total:.0%})"
            self._line(f"{share}, about {duration(left)} left")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif error is None:
            took = duration(time.monotonic() - self._begin)
            self._line(f"{self.at:,} of {self.total:,} done in {took}")

    def _line(self, text: str) -> None:
        print(f"{self.title}: {text}", file=sys.stderr, flush=True)
