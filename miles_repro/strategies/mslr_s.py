"""MSLR-S: modality-specific learning rates, smoothed (Yao & Mihalcea, 2022, 3.3).

Rule      The rates of MSLR-K move towards each other: eta_m^(1 - s) * g^s with g their geometric
          mean. The source gives three hand-picked examples and no formula; two of them fit this
          one with s near 0.5.
Defaults  s 0.5; searched over {0.25, 0.5, 0.75}. Loss, rates, support: as MSLR-K.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import Field

from miles_repro.strategies.base import Context, hyperparameters
from miles_repro.strategies.mslr_k import MSLRKeep


def smoothed(rates: Mapping[str, float], s: float) -> dict[str, float]:
    """Interpolate geometrically: s = 0 keeps the rates, s = 1 makes them equal."""
    mean = math.exp(sum(math.log(r) for r in rates.values()) / len(rates))
    return {m: r ** (1 - s) * mean**s for m, r in rates.items()}


@hyperparameters
class MSLRSmooth(MSLRKeep):
    """MSLR-K on smoothed rates."""

    s: float = Field(ge=0, le=1)

    def apply(self, ctx: Context, rates: Mapping[str, float]) -> None:
        super().apply(ctx, smoothed(rates, self.s))
