"""Strategies that misbehave on purpose, for tests of what a sweep survives."""

from __future__ import annotations

import os
import signal
import time

from miles_repro.context import Context
from miles_repro.strategies.miles import Miles
from miles_repro.strategies.vanilla import Vanilla


class Broken(Vanilla):
    """Fails in its second epoch."""

    def on_epoch_start(self, ctx: Context) -> None:
        if ctx.epoch == 2:
            raise RuntimeError("broken on purpose")


class Deadly(Vanilla):
    """Kills its process in its first epoch, as the system does when memory runs out."""

    def on_epoch_start(self, ctx: Context) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Slow(Miles):
    """MILES that takes its time, so that a test can interrupt it."""

    seconds: float

    def on_epoch_start(self, ctx: Context) -> None:
        time.sleep(self.seconds)
