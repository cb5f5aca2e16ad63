"""AGM: adaptive gradient modulation (Li et al., ICCV 2023).

Rule      f(S) is the network with the inputs of all modalities outside S at zero. A modality's
          part phi_m is its Shapley value for f plus f(none) / M, so that sum_m phi_m = f(all);
          for two, phi_a = (f(av) - f(v) + f(a)) / 2. Per batch, s_m = mean negative
          log-likelihood of phi_m; r_m = exp(mean_{j != m} s_j - s_m), tau_m the same from the
          means of s over all batches so far (0 at first); the gradient that enters phi_m is
          multiplied by k_m = exp(alpha min(tau_m - r_m, cap)), cap 10 (7 from three modalities
          on). f(S) of a part only is computed in eval mode, and is not detached. If an entry of
          a weight gradient of the fusion exceeds 1, the norm of all gradients is clipped to
          ``clip`` (the authors' scripts: 1, with three modalities 5).
Loss      L_AB = CE(sum_m phi_m).
Defaults  alpha 1 (the code); ``ends`` 1.0: share of epochs with modulation (the code's default is
          20 epochs, the authors' CREMA-D run 1500 with alpha 1.5: all).
Search    alpha {0.5, 1.0, 1.5, 2.5}, ends {0.5, 1.0}.
Deviations from the official code
          k = 1 after the last modulated epoch, where the code keeps the last coefficients for
          ever. A popular port has the sign of the exponent reversed.
          ``zero: features`` zeroes features instead of inputs (ours): no second encoder pass.
Note      An independent group measured 46.6 % on CREMA-D with the released code, below its joint
          baseline of 60.3 %: treat as fragile.
Supports  any fusion, task and number of modalities M (2^M - 1 passes through the fusion).
          Unimodal predictions are the phi_m. Multilabel: s_m = mean binary cross-entropy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from miles_repro.context import Batch, Context, Logits, evaluating
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy
from miles_repro.tasks import Task

FLOOR = 1e-8
"""Smallest probability of the right answer in a score."""


def subsets(n: int) -> list[tuple[int, ...]]:
    """The non-empty sets of ``n`` modalities, the full one first."""
    return [s for size in range(n, 0, -1) for s in combinations(range(n), size)]


def shares(n: int) -> Tensor:
    """Weight of f(S) in phi_m, (M, 2^M - 1), S as in :func:`subsets`; f(none) cancels."""
    weight = [math.factorial(k) * math.factorial(n - k - 1) / math.factorial(n) for k in range(n)]
    return torch.tensor(
        [[weight[len(s) - 1] if m in s else -weight[len(s)] for s in subsets(n)] for m in range(n)]
    )


def score(task: Task, logits: Tensor, y: Tensor) -> Tensor:
    """s: mean negative log-likelihood of the right answer, a scalar."""
    if task.name == "multilabel":
        return task.loss(logits.float(), y).clamp(max=-math.log(FLOOR))
    return -task.confidence(logits.float(), y).clamp(min=FLOOR).log().mean()


def ratio(s: Tensor) -> Tensor:
    """exp(mean of the others' scores - s), (M,)."""
    return torch.exp((s.sum() - s) / (len(s) - 1) - s)


def coefficients(s: Tensor, running: Tensor, alpha: float) -> Tensor:
    """k (M,) from the batch's scores and their running means, (M,) each."""
    cap = 10 if len(s) == 2 else 7
    return torch.exp(alpha * (ratio(running) - ratio(s)).clamp(max=cap))


@contextmanager
def evaluating_with_gradient(model: nn.Module) -> Iterator[None]:
    """Eval mode that can be trained through: cuDNN's recurrent layers refuse to in theirs."""
    with evaluating(model):
        for module in model.modules():
            if isinstance(module, nn.RNNBase) and module.dropout == 0:
                module.training = True
        yield


class AGM(Strategy):
    """Scale the gradient of each modality's part of the prediction."""

    needs: ClassVar[Needs] = Needs(passes=2.0)
    persistent: ClassVar[tuple[str, ...]] = ("running", "steps", "blank")

    alpha: float = hyper(1.0, ge=0)
    ends: float = hyper(1.0, ge=0, le=1)
    clip: float | None = hyper(1.0, gt=0)
    zero: Literal["inputs", "features"] = "inputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.running = torch.empty(0)
        self.steps = 0
        self.blank: dict[str, Tensor] = {}
        self._seen: list[Tensor] = []

    def setup(self, ctx: Context) -> None:
        """A model that is only read, from kept weights, takes no step that would set ``blank``."""
        if self.zero == "inputs" and "train" in set(ctx.parts):
            x, _ = ctx.parts["train"].batch(torch.arange(1))
            self.blank = {m: torch.zeros_like(one) for m, one in x.items()}

    def on_epoch_start(self, ctx: Context) -> None:
        self._seen = []

    def step(self, ctx: Context, batch: Batch) -> Logits:
        with ctx.autocast():
            out = ctx.forward(batch)
            present = out.features
            if self.zero == "inputs":
                self.blank = {m: torch.zeros_like(x[:1]) for m, x in batch.x.items()}
                with evaluating_with_gradient(ctx.model):
                    present = ctx.model.encode(batch.x)
            outputs = self._outputs(ctx, out, present)
            weights = shares(len(ctx.modalities)).to(outputs)
            phi = torch.einsum("ms,sbc->mbc", weights, outputs.detach())
            k = self._coefficients(ctx, phi, batch.y).float()  # half precision may not hold it
            # As CE(f(all)), but f(S) gets the gradients of the phi_m that it is part of.
            with torch.autocast(outputs.device.type, enabled=False):
                still = (outputs - outputs.detach()).float()
                through = torch.einsum("s,sbc->bc", k @ weights.float(), still)
            loss = ctx.task.loss(out.fused.detach() + through, batch.y)
        ctx.backward(loss)
        self._clip(ctx)
        ctx.update()
        return {"fused": out.fused.detach(), **dict(zip(ctx.modalities, phi, strict=True))}

    def _outputs(self, ctx: Context, out: Output, present: Mapping[str, Tensor]) -> Tensor:
        """f(S) of every subset, (2^M - 1, B, C), from features with nothing missing."""
        with evaluating_with_gradient(ctx.model):
            absent = {
                m: ctx.model.encoders[m](self.blank[m].to(z.device)).expand_as(z)
                if m in self.blank
                else torch.zeros_like(z)
                for m, z in present.items()
            }
            parts = [
                ctx.model.fusion(
                    {m: (present if i in s else absent)[m] for i, m in enumerate(ctx.modalities)}
                )
                for s in subsets(len(ctx.modalities))[1:]
            ]
        return torch.stack([out.fused, *parts])

    @torch.no_grad()
    def _coefficients(self, ctx: Context, phi: Tensor, y: Tensor) -> Tensor:
        """k (M,), and the running means moved on."""
        s = torch.stack([score(ctx.task, one, y) for one in phi])
        before = self.running.to(s) if self.steps else torch.zeros_like(s)
        self.running = (before * self.steps + s) / (self.steps + 1)
        self.steps += 1
        if ctx.epoch > round(self.ends * ctx.epochs):
            return torch.ones_like(s)
        self._seen.append(coefficients(s, before, self.alpha))
        return self._seen[-1]

    def _clip(self, ctx: Context) -> None:
        grads = [p.grad for p in ctx.model.fusion.parameters() if p.grad is not None and p.ndim > 1]
        if self.clip is not None and any(float(g.abs().max()) > 1 for g in grads):
            nn.utils.clip_grad_norm_(ctx.parameters(), self.clip)

    def unimodal(self, ctx: Context, out: Output) -> dict[str, Tensor]:
        outputs = self._outputs(ctx, out, out.features)
        phi = torch.einsum("ms,sbc->mbc", shares(len(ctx.modalities)).to(outputs), outputs)
        return dict(zip(ctx.modalities, phi, strict=True))

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        k = torch.stack(self._seen).mean(0).tolist() if self._seen else [1.0] * len(ctx.modalities)
        self._mean = dict(zip(ctx.modalities, k, strict=True))

    def log(self) -> dict[str, float]:
        return {f"k_{m}": k for m, k in self._mean.items()}
