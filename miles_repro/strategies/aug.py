"""AUG: sustained boosting of the weaker modality (Jiang, Huang & Yang, NeurIPS 2025, Eq. 2-5).

Rule      No fused head. Modality m owns heads h_j = relu(E_j z_m + c_j), one at first; a linear
          layer S, s shared by all heads and modalities gives l_j = S h_j + s, f_m = sum of l_j.
          After the first epoch and every ``every`` x epochs, the modality whose mean probability
          of the right answer over the epoch's batches is smallest, by more than tau below the
          largest (``rule: ratio``: by more than that share), gets one more head.
Loss      In every batch the modalities take turns, each with a step of its own encoder, heads and
          the shared layer: CE(f_m); with two heads or more CE(f_m) + CE(o) + mean of
          (1 - lam p_o) CE(l), l the newest head's logits, o the sum of the others', p_o its
          probability of the right answer, a constant. Prediction: the mean of f_m.
Defaults  lam 0.5, tau 0.01, every 0.1 (20 of 200 epochs), width 256 of a head: the authors' values.
Search    lam {0.2, 0.5, 1}, tau {0.01, 0.05}, every {0.05, 0.1}.
Deviations from the official code
          its optimizer is made before the heads, which therefore stay at random: ours are trained,
          as the paper says; it weighs audio 0.4 and video 0.6. The paper sums probabilities where
          the code sums logits, as here; its printed algorithm exchanges the branches of the rule.
Note      No setting equals vanilla.
Supports  fusion late only, whose place the heads take; any number of modalities; one label a
          sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miles_repro.context import Batch, Context, Logits
from miles_repro.fusions.base import Fusion
from miles_repro.hyper import hyper
from miles_repro.strategy import Needs, Strategy


class Boosted(Fusion):
    """f_m = sum over m's heads of S relu(h(z_m)) + s; fused: their mean.

    heads: modality -> its heads, oldest first, asked for anew each time.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        width: int,
        heads: Callable[[str], Sequence[nn.Module]],
    ) -> None:
        super().__init__(dims, num_classes)
        self.shared, self.heads = nn.Linear(width, num_classes), heads

    def outputs(self, m: str, z: Tensor) -> Tensor:
        """l_j (heads, B, C) of a modality's feature (B, d_m)."""
        return torch.stack([self.shared(head(z).relu()) for head in self.heads(m)])

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        return torch.stack(list(self.unimodal(features).values())).mean(0)

    def unimodal(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self.outputs(m, features[m]).sum(0) for m in self.dims}


def boosting_loss(outputs: Tensor, y: Tensor, lam: float) -> Tensor:
    """A modality's loss, a scalar, from its heads' logits (heads, B, C), oldest first."""
    loss = F.cross_entropy(outputs.sum(0), y)
    if len(outputs) == 1:
        return loss
    before, newest = outputs[:-1].sum(0), outputs[-1]
    known = before.detach().float().softmax(1).gather(1, y[:, None]).squeeze(1)
    residual = (1 - lam * known) * F.cross_entropy(newest, y, reduction="none")
    return loss + F.cross_entropy(before, y) + residual.mean()


def weaker(scores: Mapping[str, float], tau: float, rule: str = "difference") -> str | None:
    """The modality that gets a head, if any."""
    low, high = min(scores, key=scores.__getitem__), max(scores, key=scores.__getitem__)
    if rule == "difference":
        return low if scores[high] - scores[low] > tau else None
    first, second = [m for m in scores if m in (low, high)] if low != high else (low, low)
    return low if abs(scores[first] / scores[second] - 1) > tau else None


class AUG(Strategy):
    """Heads for whoever lags behind."""

    needs: ClassVar[Needs] = Needs(
        fusions=frozenset({"late"}), tasks=frozenset({"multiclass"}), passes=1.1
    )
    persistent: ClassVar[tuple[str, ...]] = ("owners",)

    lam: float = hyper(0.5, ge=0, le=1)
    tau: float = hyper(0.01, ge=0)
    every: float = hyper(0.1, gt=0, le=1)
    width: int = hyper(256, ge=1)
    rule: Literal["difference", "ratio"] = "difference"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.owners: list[str] = []  # the modality of each head, in the order they were made

    def modules(self, ctx: Context) -> dict[str, nn.Module]:
        dims = ctx.model.fusion.dims
        self.owners = self.owners or list(ctx.modalities)
        return {
            f"boost.{m}.{self.owners[:i].count(m)}": nn.Linear(dims[m], self.width)
            for i, m in enumerate(self.owners)
        }

    def setup(self, ctx: Context) -> None:
        def heads(m: str) -> list[nn.Module]:
            parts = ctx.model.parts()
            return [parts[g] for g in self._groups(ctx, m)]

        dims, classes = ctx.model.fusion.dims, ctx.task.num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(ctx.seed_of("fusion"))
            ctx.model.fusion = Boosted(dims, classes, self.width, heads).to(ctx.recipe.device)

    def _groups(self, ctx: Context, m: str) -> list[str]:
        """The groups of a modality's heads, oldest first."""
        return [g for g in ctx.model.parts() if g.startswith(f"boost.{m}.")]

    def on_epoch_start(self, ctx: Context) -> None:
        self._sums, self._count = dict.fromkeys(ctx.modalities, torch.zeros(())), 0

    def step(self, ctx: Context, batch: Batch) -> Logits:
        fusion = ctx.model.fusion
        assert isinstance(fusion, Boosted)
        with ctx.autocast():
            out = ctx.forward(batch)
            logits = ctx.logits(out)  # before the turns change the heads
        for m, z in out.features.items():
            with ctx.autocast():
                outputs = fusion.outputs(m, z)
                loss = boosting_loss(outputs, batch.y, self.lam)
            ctx.backward(loss)
            ctx.update([f"encoder.{m}", *self._groups(ctx, m), "fusion"])
            score = ctx.task.confidence(outputs.detach().sum(0).float(), batch.y).sum()
            self._sums[m] = self._sums[m].to(score) + score
        self._count += len(batch.y)
        return logits

    def checks(self, epoch: int, epochs: int) -> bool:
        """Whether a head may be added after an epoch (from 1)."""
        return epoch == 1 or epoch % max(1, round(self.every * epochs)) == 0

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        self._scores = {m: float(s) / self._count for m, s in self._sums.items()}
        m = weaker(self._scores, self.tau, self.rule)
        if m is not None and self.checks(ctx.epoch, ctx.epochs):
            self.grow(ctx, m)

    def grow(self, ctx: Context, m: str) -> None:
        """One more head for a modality."""
        head = nn.utils.skip_init(nn.Linear, ctx.model.fusion.dims[m], self.width)
        nn.init.xavier_uniform_(head.weight, generator=ctx.generator)
        nn.init.zeros_(head.bias)
        ctx.add(head, f"boost.{m}.{self.owners.count(m)}")
        self.owners.append(m)

    def log(self) -> dict[str, float]:
        heads = {f"heads_{m}": float(self.owners.count(m)) for m in self._scores}
        return {**heads, **{f"score_{m}": s for m, s in self._scores.items()}}
