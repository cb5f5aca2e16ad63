"""MCR: multimodal competition regulariser (Kontras et al., NeurIPS 2025, arXiv 2411.07335).

Rule      J_S is how much the fused prediction depends on the modalities in S: the mean
          Jensen-Shannon divergence from the prediction with their features permuted within the
          batch, over ``permutations`` draws. In the ``game`` each modality m raises J_S of the sets
          with it and (greedy) lowers those of the sets without it; independent leaves the others'
          alone; collaborative: all raise every J_m.
Loss      L_AB + w_u (L_A + L_B) + lam R + w_c L_con + w_b L_ceb. R sums -J_S and +J_S for every m
          and S short of all, each reaching m alone (its encoder and part of a linear fusion) in
          the permuted prediction. L_con: supervised contrast of all features, on their cosines
          over 0.5, same label against others. L_ceb: squared error of the features
          reconstructed from the fused logits by two linear layers and a ReLU.
Defaults  lam 0.1, w_u 0.01, w_c 1, w_b 0, 32 permutations, greedy: the authors' for CREMA-D.
          ``init`` none, as all rows here; ``teacher`` starts the encoders from unimodal runs, as
          the authors' CREMA-D row (with ``+strategy.teachers=best``).
Search    lam {0.01, 0.1, 1}, w_u {0.01, 0.1, 1}, w_c {0, 1}.
Deviations from the official code, which returns its loss without R and L_con: added here. It uses
          J of its first modality three times in a game of three. It runs the encoders again for
          the permuted features; we permute within the batch, as the paper. Literal gradients of
          Eq. 12-13 differ from the code's in the clean prediction's part: ours is the code's.
Note      With two modalities the greedy R is 0 whatever the weights; only its gradient counts.
          FiLM and gated fusions get none of it, only encoders do.
Supports  any fusion, task of classes and number of modalities (2^M sets). Unequal widths:
          projected as in ``lfm.py`` for L_con. Multilabel: J of each label; alike are
          samples of equal labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.fusions.late import Late
from miles_repro.fusions.sum import Sum
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategies.lfm import aligned, projections
from miles_repro.strategies.mla import WITH_ENTROPY
from miles_repro.strategy import Needs, Strategy, weighted_loss
from miles_repro.tasks import Task

TEMPERATURE = 0.5
Permutations = Mapping[str, Tensor]
"""Modality -> rows (N, B): N permutations of a batch."""


def divergence(task: Task, f: Tensor, g: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence, a scalar up to log 2, of predictions of logits (B, C)."""
    if task.name != "multiclass":  # one of two outcomes a label
        f, g = (torch.stack([x, -x], dim=-1) / 2 for x in (f, g))
    p, q = f.float().log_softmax(-1), g.float().log_softmax(-1)
    middle = torch.logaddexp(p, q) - math.log(2)
    return ((p.exp() * (p - middle) + q.exp() * (q - middle)).sum(-1) / 2).mean()


def perturbed(fusion: Fusion, z: Mapping[str, Tensor], rows: Permutations, m: str | None) -> Tensor:
    """Fused logits (N B, C), each modality's features from its rows (N, B).

    Gradients reach modality m alone, and of a linear fusion its part alone; None: everything.
    """
    linear = isinstance(fusion, (Concat, Sum, Late))
    parts = fusion.unimodal(z) if linear else z
    taken = {
        n: (part if m in (None, n) else part.detach())[rows[n].flatten()]
        for n, part in parts.items()
    }
    if not linear:
        return fusion(taken)
    total = torch.stack(list(taken.values()))
    return total.mean(0) if isinstance(fusion, Late) else total.sum(0)


def contrast(features: Sequence[Tensor], y: Tensor) -> Tensor:
    """L_con, a scalar, of features (B, d) a modality with labels (B,) or (B, C)."""
    z = F.normalize(torch.cat([f.float() for f in features]), dim=1)
    y = torch.cat([y[:, None] if y.ndim == 1 else y] * len(features))
    alike = (y[:, None] == y[None]).all(-1)
    similar = z @ z.T / TEMPERATURE
    others = similar.masked_fill(alike, torch.finfo(similar.dtype).min).logsumexp(1)
    positive = alike & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    return F.softplus(others[:, None] - similar)[positive].mean()


class MCR(Strategy):
    """Modalities compete for the fused prediction."""

    lam: float = hyper(0.1, ge=0)
    w_u: float = hyper(0.01, ge=0)
    w_c: float = hyper(1.0, ge=0)
    w_b: float = hyper(0.0, ge=0)
    permutations: int = hyper(32, ge=1)
    game: Literal["greedy", "independent", "collaborative"] = "greedy"
    init: Literal["none", "teacher"] = "none"

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        return Needs(
            heads="trained", tasks=WITH_ENTROPY, teachers=self.init == "teacher", passes=1.2
        )

    def modules(self, ctx: Context) -> dict[str, nn.Module]:
        dims = ctx.model.fusion.dims
        made: dict[str, nn.Module] = projections(dims) if self.w_c else {}
        if self.w_b:
            width, total = max(dims.values()), sum(dims.values())
            first = nn.Linear(ctx.task.num_classes, width, bias=False)
            made["rebuild"] = nn.Sequential(first, nn.ReLU(), nn.Linear(width, total, bias=False))
        return made

    def setup(self, ctx: Context) -> None:
        if self.init == "teacher":
            for m, encoder in ctx.model.encoders.items():
                encoder.load_state_dict(ctx.teacher(m).encoder.state_dict())

    def on_epoch_start(self, ctx: Context) -> None:
        self._seen: dict[str, list[Tensor]] = {m: [] for m in ctx.modalities}

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        weights = {"fused": 1.0, **dict.fromkeys(ctx.modalities, self.w_u)}
        loss = weighted_loss(ctx.task, out, batch.y, weights)
        if self.lam:
            loss = loss + self.lam * self.regulariser(ctx, out, self.draw(ctx, len(batch.y)))
        if self.w_c:
            loss = loss + self.w_c * contrast(aligned(ctx, out.features), batch.y)
        if self.w_b:
            loss = loss + self.w_b * self.rebuilding(ctx, out)
        return loss

    def draw(self, ctx: Context, size: int) -> Permutations:
        """Permutations of a batch of ``size``, each modality's its own."""
        return {
            m: torch.stack(
                [torch.randperm(size, generator=ctx.generator) for _ in range(self.permutations)]
            ).to(ctx.recipe.device)
            for m in ctx.modalities
        }

    def regulariser(self, ctx: Context, out: Output, drawn: Permutations) -> Tensor:
        """R, a scalar."""
        n, size = next(iter(drawn.values())).shape
        own = torch.arange(size, device=out.fused.device).expand(n, size)
        clean = out.fused.repeat(n, 1)
        terms = []
        for permuted, m, sign in self.moves(ctx.modalities):
            rows = {k: drawn[k] if k in permuted else own for k in drawn}
            f = perturbed(ctx.model.fusion, out.features, rows, m)
            j = divergence(ctx.task, clean, f)
            terms.append(sign * j)
            if len(permuted) == 1 and sign < 0:
                self._seen[permuted[0]].append(j.detach())
        return torch.stack(terms).sum()

    def moves(self, modalities: list[str]) -> Iterator[tuple[tuple[str, ...], str | None, int]]:
        """Every term of R: the set S, whom it reaches (None: all), and its sign."""
        if self.game == "collaborative":
            yield from (((m,), None, -1) for m in modalities)
            return
        sizes = range(1, len(modalities))
        sets = list(chain.from_iterable(combinations(modalities, k) for k in sizes))
        for m in modalities:
            yield from ((s, m, -1) for s in sets if m in s)
            if self.game == "greedy":
                yield from ((s, m, 1) for s in sets if m not in s)

    def rebuilding(self, ctx: Context, out: Output) -> Tensor:
        """L_ceb, a scalar."""
        rebuilt = ctx.model.parts()["rebuild"](out.fused.detach())
        return F.mse_loss(rebuilt, torch.cat(list(out.features.values()), dim=1))

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        self._mean = {m: float(torch.stack(j).mean()) for m, j in self._seen.items() if j}

    def log(self) -> dict[str, float]:
        return {f"J_{m}": j for m, j in self._mean.items()}
