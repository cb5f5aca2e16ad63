"""OGM-GE: OGM with generalisation enhancement (Peng et al., CVPR 2022).

Rule      As OGM; then Gaussian noise is added to the gradients of every modulated tensor of both
          encoders: grad <- k grad + h, h ~ N(0, (std(raw grad) + 1e-8)^2) per tensor, from the
          unmodulated gradient, also where k = 1.
Loss, defaults, search, support: as OGM (``ogm.py``).
Note      With Adam, which all MILES baselines used, the noise is most of what remains of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from miles_repro.context import Context
from miles_repro.strategies.ogm import EPS, OGM


class OGMGE(OGM):
    """OGM plus noise from the strategy's own generator."""

    def modulate(self, ctx: Context, grads: list[Tensor], k: Tensor) -> None:
        stds = [g.std(correction=1) + EPS if g.numel() > 1 else g.abs() * 0 for g in grads]
        super().modulate(ctx, grads, k)
        for grad, std in zip(grads, stds, strict=True):
            noise = torch.randn(grad.shape, generator=ctx.generator, device=ctx.generator.device)
            grad.add_(noise.to(grad.device, grad.dtype) * std)
