"""MSLR-S: modality-specific learning rates, smoothed (Yao & Mihalcea, 2022, 3.3).

Rule      The rates of MSLR-K move towards each other: eta_m^(1 - s) * g^s with g their geometric
          mean. The source gives three hand-picked examples and no formula; two of them fit this
          one with s near 0.5. ``formula: arithmetic`` moves them towards the plain average instead,
          the other reading of "towards their average".
Defaults  s 0.5; searched over {0.25, 0.5, 0.75}. Loss, rates, support: as MSLR-K.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from miles_repro.context import Context
from miles_repro.hyper import hyper
from miles_repro.strategies.mslr_k import MSLRKeep


def smoothed(
    rates: Mapping[str, float], s: float, formula: Literal["geometric", "arithmetic"] = "geometric"
) -> dict[str, float]:
    """Interpolate between the rates and their mean: s = 0 keeps them, s = 1 makes them equal."""
    if formula == "arithmetic":
        centre = sum(rates.values()) / len(rates)
        return {m: (1 - s) * r + s * centre for m, r in rates.items()}
    mean = math.exp(sum(math.log(r) for r in rates.values()) / len(rates))
    return {m: r ** (1 - s) * mean**s for m, r in rates.items()}


class MSLRSmooth(MSLRKeep):
    """MSLR-K on smoothed rates."""

    s: float = hyper(0.5, ge=0, le=1)
    formula: Literal["geometric", "arithmetic"] = "geometric"

    def apply(self, ctx: Context, rates: Mapping[str, float]) -> None:
        super().apply(ctx, smoothed(rates, self.s, self.formula))
