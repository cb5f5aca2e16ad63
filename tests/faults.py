"""Strategies and an encoder that misbehave on purpose, for tests of what a sweep survives."""

from __future__ import annotations

import os
import signal
import time

from torch import nn

from miles_repro.context import Context
from miles_repro.encoders.mlp import MLP
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


class Normalised(MLP):
    """An encoder that cannot train on a batch of one sample."""

    def __init__(self, in_features: int, dim: int = 4) -> None:
        super().__init__(in_features, dim, depth=1, norm="none")
        self.layers.append(nn.BatchNorm1d(dim))
