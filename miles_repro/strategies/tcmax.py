"""TCMax: total correlation maximisation (Yu et al., ICLR 2026, arXiv 2602.13015).

Rule      The fused head scores not only the batch's own pairs but every combination of one sample's
          feature of one modality with another's of the next: F (B^M, C).
Loss      -mean_i F_ii[y_i] + log mean_(combinations, classes) exp F, in place of the cross-entropy;
          nothing is detached. 0 for a model that knows nothing, negative once it has learnt.
          Concat, sum and late take the exact sum in O(B), as F is a sum of terms u_m there:
          log sum_c prod_m sum_j exp u_m[j, c]. Other fusions are run on all combinations.
Defaults  none to set. ``negatives`` draws so many combinations a step, with replacement, instead of
          taking all. Where all would be more than 65,536 fusion outputs a step, 1,024 are drawn.
Search    negatives {256, 1024, all}. The batch size is part of the method.
Deviations from the official code
          its loss is larger by the constant log(B C); it subtracts the mean before exp and returns
          NaN for large logits; its sampled form crashes for other fusions than sum; its best
          checkpoint holds live tensors, so that the last epoch is what it tests.
Supports  any fusion and number of modalities, one label a sample (y is one class). The loss has no
          neutral point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.fusions.concat import Concat
from miles_repro.fusions.late import Late
from miles_repro.fusions.sum import Sum
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy

MOST, DRAWN = 65_536, 1024
"""Most combinations that the fusion is run on in a step, all pairs of a batch of 256, and how many
are drawn where there are more."""


def true_logit(fused: Tensor, y: Tensor) -> Tensor:
    """Mean logit of the right class, a scalar, from F_ii (B, C)."""
    return fused.gather(1, y[:, None]).mean()


def total_correlation(fused: Tensor, y: Tensor, crossed: Tensor) -> Tensor:
    """The loss from F_ii (B, C) and the logits of the combinations (N, C)."""
    return crossed.logsumexp((0, 1)) - math.log(crossed.numel()) - true_logit(fused, y)


def additive_total_correlation(fused: Tensor, y: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """The same over all B^M combinations, from logits u_m (B, C) whose sum F is."""
    size, classes = fused.shape
    everything = torch.stack([u.logsumexp(0) for u in parts]).sum(0).logsumexp(0)
    return everything - len(parts) * math.log(size) - math.log(classes) - true_logit(fused, y)


class TCMax(Strategy):
    """One loss over combined features."""

    needs: ClassVar[Needs] = Needs(tasks=frozenset({"multiclass"}), passes=1.0)

    negatives: int | None = hyper(None, ge=1)

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        fused, fusion = out.fused.float(), ctx.model.fusion
        if self._additive(ctx) and self.negatives is None:
            share = 1 / len(ctx.modalities) if isinstance(fusion, Late) else 1.0  # a mean
            parts = [share * u.float() for u in fusion.unimodal(out.features).values()]
            return additive_total_correlation(fused, batch.y, parts)
        rows = self.combinations(ctx, len(batch.y)).to(fused.device)
        crossed = fusion({m: out.features[m][at] for m, at in zip(out.features, rows, strict=True)})
        return total_correlation(fused, batch.y, crossed.float())

    def combinations(self, ctx: Context, size: int) -> Tensor:
        """Rows (M, N) of the batch that are put together: all of them, or drawn."""
        m = len(ctx.modalities)
        if self.negatives is None and size**m <= MOST:
            return torch.cartesian_prod(*[torch.arange(size)] * m).T
        return torch.randint(size, (m, self.negatives or DRAWN), generator=ctx.generator)

    def _additive(self, ctx: Context) -> bool:
        """Whether F is a sum of terms of one modality each."""
        return isinstance(ctx.model.fusion, (Concat, Sum, Late))
