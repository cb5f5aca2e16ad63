"""MSLR-D: modality-specific learning rates, dynamic (Yao & Mihalcea, 2022, Eq. 2).

Rule      From the rates of MSLR-K: after epoch t encoder m's next rate is eta_m * r_t with
          r_t = M_m(t) / mean of M_m over the ``window`` epochs before t; r_t = 1 until that many
          exist or where the mean is 0. Relative to eta_m, so nothing compounds. M_m is the
          unimodal validation metric from the logit split.
Defaults  window 5 (source: 5 to 10); searched over {5, 10}. Loss, rates, support: as MSLR-K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from miles_repro.context import Context
from miles_repro.hyper import hyper
from miles_repro.strategies.mslr_k import MSLRKeep
from miles_repro.strategy import Scores


def progress_ratio(history: Sequence[float], window: int) -> float:
    """r_t from the metrics of all epochs so far, the current one last."""
    previous = history[-window - 1 : -1]
    if len(previous) < window or sum(previous) == 0:
        return 1.0
    return history[-1] * window / sum(previous)


class MSLRDynamic(MSLRKeep):
    """MSLR-K whose rates follow each modality's progress."""

    persistent: ClassVar[tuple[str, ...]] = ("history",)

    window: int = hyper(5, ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        for m in ctx.modalities:
            self.history.setdefault(m, []).append(val[m]["metric"])
        self.apply(
            ctx,
            {
                m: self.rates[m] * progress_ratio(self.history[m], self.window)
                for m in ctx.modalities
            },
        )
