"""MSLR-K: modality-specific learning rates, kept (Yao & Mihalcea, Findings of ACL 2022, 3.2).

Rule      Encoder m trains at the rate that was best when modality m was trained alone, for the
          whole run. The fusion layer trains at the global rate (the source has no such layer).
Loss      L_AB.
Defaults  ``rates``: ``records`` takes, for each modality, the best rate by validation among the
          finished ``unimodal`` runs of the same data set and budget; or give them, modality: rate.
Search    the global rate (fusion layer).
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

from collections.abc import Mapping

from miles_repro.context import Context
from miles_repro.hyper import hyper
from miles_repro.strategy import Strategy


class MSLRKeep(Strategy):
    """Fixed rates by parameter group; scaling gradients instead would do nothing under Adam."""

    rates: dict[str, float] = hyper(gt=0)

    def setup(self, ctx: Context) -> None:
        missing = [m for m in ctx.modalities if m not in self.rates]
        if missing:
            raise ValueError(f"rates has no entry for {', '.join(missing)}")
        self.apply(ctx, {m: self.rates[m] for m in ctx.modalities})

    def apply(self, ctx: Context, rates: Mapping[str, float]) -> None:
        """Set the encoders' rates, as factors on the global one."""
        self.state.lr_factors = {f"encoder.{m}": r / ctx.lr for m, r in rates.items()}
