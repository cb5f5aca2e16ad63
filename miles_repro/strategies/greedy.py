"""Greedy learners, guided (Wu et al., ICML 2022): re-balancing by conditional learning speed.

Rule      Two modalities that meet in an MMTM. Parameters of modality m: main, its encoder and
          classifier; bypass, its excitation and the squeeze that both share. At every step the
          squared norm of their gradients over that of their weights is added up over the run;
          BDR_m = log10(sum of bypass / sum of main). Where |BDR_A - BDR_B| > epsilon, for the next
          ``window`` steps the modality of the larger BDR has its gate held at the mean gate of the
          training so far: it must do with its own features. Nothing is added up meanwhile.
Loss      L_AB.
Defaults  epsilon 0.01, window 5: the authors' values; nothing is held in the first ``warmup`` 0.02
          of the epochs (official: two).
Search    epsilon {0.001, 0.01, 0.1}, window {5, 20}.
Deviations from the official code
          the mean gate of its second modality is fed with the first one's gates, and moves in
          evaluation too. It has three MMTMs between convolutions; ours sits on the features.
Note      epsilon beyond reach is vanilla.
Supports  fusion mmtm, two modalities, any task.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.fusions.mmtm import MMTM
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy

TINY = 1e-30


def speed(modules: list[nn.Module]) -> Tensor:
    """Squared norm of the gradients over that of the weights, a scalar."""
    every = [p for module in modules for p in module.parameters()]
    gradients = [p.grad for p in every if p.grad is not None]
    moved = torch.stack([g.float().square().sum() for g in gradients]).sum()
    return moved / torch.stack([p.detach().float().square().sum() for p in every]).sum()


class Greedy(Strategy):
    """Hold the gate of the modality that leans on the other."""

    needs: ClassVar[Needs] = Needs(fusions=frozenset({"mmtm"}), max_modalities=2)
    persistent: ClassVar[tuple[str, ...]] = (
        *("bypass", "main", "difference", "held", "left"),
        *("mean_gates", "batches"),
    )

    epsilon: float = hyper(0.01, ge=0)
    window: int = hyper(5, ge=1)
    warmup: float = hyper(0.02, ge=0, le=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bypass, self.main = [0.0, 0.0], [0.0, 0.0]
        self.held, self.left = "", 0
        self.difference = 0.0
        self.mean_gates: dict[str, Tensor] = {}
        self.batches = 0

    def setup(self, ctx: Context) -> None:
        self._fusion(ctx).regate = self.regate

    def _fusion(self, ctx: Context) -> MMTM:
        assert isinstance(ctx.model.fusion, MMTM)
        return ctx.model.fusion

    def regate(self, gates: dict[str, Tensor]) -> dict[str, Tensor]:
        """A training batch's gates (B, d_m); the held one is the mean so far, now included."""
        self.batches += 1
        for m, gate in gates.items():
            now = gate.detach().float().mean(0)
            mean = self.mean_gates.get(m, now).to(now)
            self.mean_gates[m] = mean.lerp(now, 1 / self.batches)
        if not self.held:
            return gates
        gate = gates[self.held]
        return {**gates, self.held: self.mean_gates[self.held].to(gate).expand_as(gate)}

    def on_epoch_start(self, ctx: Context) -> None:
        self._steps = self._holding = 0

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        super().backward(ctx, batch, out, loss)
        self._steps += 1
        self._holding += bool(self.held)
        self.watch(ctx)

    def watch(self, ctx: Context) -> None:
        """After a step's backward pass: who is held in the next one."""
        if self.held:
            self.left -= 1
            self.held = self.held if self.left else ""
            return
        fusion = self._fusion(ctx)
        main = [[ctx.model.encoders[m], fusion.linear[m]] for m in ctx.modalities]
        bypass = [[fusion.squeeze, fusion.excite[m]] for m in ctx.modalities]
        found = torch.stack([speed(modules) for modules in (*bypass, *main)]).tolist()
        if not all(map(math.isfinite, found)):
            return  # an overflow, whose step is not taken
        self.bypass = [a + b for a, b in zip(self.bypass, found[:2], strict=True)]
        self.main = [a + b for a, b in zip(self.main, found[2:], strict=True)]
        a, b = (
            math.log10(max(x, TINY) / max(y, TINY))
            for x, y in zip(self.bypass, self.main, strict=True)
        )
        self.difference = a - b
        if ctx.epoch > round(self.warmup * ctx.epochs) and abs(self.difference) > self.epsilon:
            self.held, self.left = ctx.modalities[self.difference < 0], self.window

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        self._share = self._holding / max(self._steps, 1)

    def log(self) -> dict[str, float]:
        return {"d_BDR": self.difference, "holding": self._share}
