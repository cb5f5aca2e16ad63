"""MSES: modality-specific early stopping (Fujimori et al., ACPR 2019).

Rule      Three parts - modality A, modality B (encoder and head), and the fused classifier - are
          trained together and watched apart. A part that has not improved on validation for
          ``patience`` x epochs (at least one) gets its best state back and is frozen: no step,
          batch-norm statistics kept, its loss dropped. The model is validated again after a part
          was restored, so that the composite which the rule defines can be selected. The run ends
          when all parts have stopped.
Loss      L_AB + L_A + L_B over the parts still training.
Defaults  patience 0.2, searched over {0.05, 0.1, 0.2, 0.4}: 5 to 40 of 100 epochs, a share so that
          short and long runs mean the same; ``criterion`` metric; ``weight`` 1 on unimodal losses.
          The paper's text is not available: patience, criterion and loss weights are unknown, these
          are ours.
Deviation A popular re-implementation multiplies gradients by zero instead; that freezes nothing
          under momentum, weight decay or Adam, and it also rewinds the other modality.
Supports  any fusion, task and number of modalities.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Multimodal, Output
from miles_repro.strategy import (
    Needs,
    Scores,
    Strategy,
    weighted_loss,
)


def groups_of(part: str) -> tuple[str, ...]:
    """Parameter groups of a part: ``fused`` or a modality."""
    return ("fusion",) if part == "fused" else (f"encoder.{part}", f"head.{part}")


def snapshot(model: Multimodal, part: str) -> dict[str, dict[str, Tensor]]:
    """A copy of the part's parameters and buffers, by group."""
    modules: dict[str, nn.Module] = model.parts()
    return {
        g: {k: v.detach().clone() for k, v in modules[g].state_dict().items()}
        for g in groups_of(part)
    }


class MSES(Strategy):
    """Early stopping for each part on its own."""

    needs: ClassVar[Needs] = Needs(heads="trained")
    persistent: ClassVar[tuple[str, ...]] = ("best", "waited", "stopped")

    patience: float = hyper(0.2, gt=0, le=1)
    criterion: Literal["metric", "loss"] = "metric"
    weight: float = hyper(1.0, gt=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.best: dict[str, dict[str, Any]] = {}
        self.waited: dict[str, int] = {}
        self.stopped: dict[str, int] = {}

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        active = [p for p in ("fused", *ctx.modalities) if p not in self.stopped]
        return weighted_loss(
            ctx.task, out, batch.y, {p: 1.0 if p == "fused" else self.weight for p in active}
        )

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        for part in ("fused", *ctx.modalities):
            if part not in self.stopped:
                self._watch(ctx, part, val[part])
        self.state.stop = len(self.stopped) == 1 + len(ctx.modalities)

    def _watch(self, ctx: Context, part: str, score: dict[str, float]) -> None:
        value = score["metric"] if self.criterion == "metric" else -score["loss"]
        if part not in self.best or value > self.best[part]["value"]:
            self.best[part] = {"value": value, "state": snapshot(ctx.model, part)}
            self.waited[part] = 0
            return
        self.waited[part] += 1
        if self.waited[part] >= max(1, round(self.patience * ctx.epochs)):
            modules = ctx.model.parts()
            for group, state in self.best.pop(part)["state"].items():
                modules[group].load_state_dict(state)
            self.stopped[part] = ctx.epoch
            self.state.edited = True
            self.state.frozen.update(groups_of(part))

    def log(self) -> dict[str, float]:
        return {f"stopped_{part}": float(epoch) for part, epoch in self.stopped.items()}
