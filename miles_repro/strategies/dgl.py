"""DGL: disentangled gradient learning (Wei, Luo & Luo, ICCV 2025, arXiv 2507.10213).

Rule      The two gradients never meet (Eq. 9-14, Alg. 1): the fusion learns from L_AB alone, as if
          the features were constants; encoder m learns from alpha * L_m alone, and that gradient
          does not reach the fusion.
Loss      L_AB for the fusion; alpha * sum_m L_m for the encoders, L_m of the fusion's logits with
          the other features at zero (the full bias, not b / M). No heads of their own.
Defaults  alpha 4, the authors' (script and paper). ``variant`` paper; official also clips the norm
          of all gradients together to 40, as the released code does.
Search    alpha {1, 2, 3, 4, 5}, the paper's own sweep. Under Adam alpha does nothing by itself (it
          scales all that an encoder gets): what matters there is the learning rate.
Deviations from the official code
          it tests the best epoch of the test set and drops that set's last batch; its gated fusion
          detaches after the two projections and erases their other gradient, so that they stay at
          their initial values for ever. Where each modality has a branch with a bias of its own,
          L_m is that branch's, as in the code.
Supports  any task and number of modalities; any fusion but FiLM and gated, which give the
          conditioned encoder next to no gradient where the other feature is zero: none at all while
          their bias is.
          No neutral point: alpha 0 would stop the encoders.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.fusions.sum import Sum
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy

FUSIONS = frozenset({"concat", "sum", "late", "lowrank", "transformer"})
"""Those in which a modality still learns where the others' features are zero."""
CLIP = 40.0
"""Largest norm of all gradients in the released code."""


def alone(fusion: Fusion, z: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits (B, C) of each modality with the others' features at zero: with the full bias."""
    if isinstance(fusion, Concat) or (isinstance(fusion, Sum) and fusion.form == "shared"):
        return Fusion.unimodal(fusion, z)  # their own would split the bias
    return fusion.unimodal(z)


class DGL(Strategy):
    """Fusion and encoders each with a loss of their own."""

    needs: ClassVar[Needs] = Needs(fusions=FUSIONS, passes=1.1)

    alpha: float = hyper(4.0, gt=0)
    variant: Literal["paper", "official"] = "paper"

    def unimodal(self, ctx: Context, out: Output) -> dict[str, Tensor]:
        return alone(ctx.model.fusion, out.features)

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        """``loss``, L_AB, moves the fusion only; a backward pass goes no further than it has to."""
        with ctx.autocast():
            terms = [ctx.task.loss(f, batch.y) for f in self.unimodal(ctx, out).values()]
        ctx.backward(loss, ["fusion"])
        ctx.backward(
            self.alpha * torch.stack(terms).sum(), [f"encoder.{m}" for m in ctx.modalities]
        )
        if self.variant == "official":
            nn.utils.clip_grad_norm_(ctx.model.parameters(), CLIP)
