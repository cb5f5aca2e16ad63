"""MIDAS: misalignment augmentation (Hwang et al., NeurIPS 2025, Eq. 1-11, Algorithm 1).

Rule      After ``warmup`` x epochs each batch is also mixed: in direction d every sample keeps its
          z_d and takes the other modalities' features from randomly permuted samples (one
          permutation for two modalities, else one each). p_m is the probability that modality m's
          head gives to the label y_m of the sample z_m comes from; c_m = p_m / sum_j p_j; s the
          mean cosine of replaced features with those they replace.
Loss      Warm-up: sum_m L_m alone. Then L_AB + sum_m L_m + lam L_mis, L_mis the mean over the
          mixed samples of (1 + (s + 1) / 2) sum_m -a_m c_m log p~(y_m), p~ the fused prediction.
          c, s and a are constants, so L_mis trains encoders and fusion, not the heads.
          After a batch a_m of the modality with the smallest mean c_m becomes
          max(1, a_m + eta delta), all others 1; delta = sign of mean c_m - mean p~(y_m) / sum_j
          p~(y_j), or that difference itself (``delta: difference``). First a = 1.
Defaults  lam 1 (paper; its CREMA-D results: 0.5 to 5 alike), eta 0.05 (paper); warmup 0.1: length
          unknown in the source, searched; a is never reset (``alpha_reset: epoch``: Algorithm 1).
Search    lam {0.5, 1, 2, 5}, warmup {0.05, 0.1, 0.2}.
Gaps      No code could be found, and the printed text does not settle: the similarity weight, the
          sign in the update (from a secondary source), one mean over both directions, leaving
          out mixed samples all of whose labels are the same, the partners of more than two
          modalities (ours).
Supports  any fusion and number of modalities. One label a sample.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro.context import Batch, Context
from miles_repro.hyper import hyper
from miles_repro.model import Output
from miles_repro.strategy import Needs, Strategy, joint_weights, weighted_loss


class Mixed(NamedTuple):
    """Mixed samples: where each modality comes from, (n, M), and constants of their targets.

    labels, c: (n, M); similarity: (n,); counted: (n,) bool, False where all labels are the same.
    """

    source: Tensor
    labels: Tensor
    c: Tensor
    similarity: Tensor
    counted: Tensor


def sources(partners: Tensor) -> Tensor:
    """Rows (M B, M) that the modalities of each mixed sample come from; partners: (B, M)."""
    own = torch.arange(len(partners), device=partners.device)
    directions = []
    for d in range(partners.shape[1]):
        taken = partners.clone()
        taken[:, d] = own
        directions.append(taken)
    return torch.cat(directions)


def mixed(z: list[Tensor], y: Tensor, confidence: Tensor, partners: Tensor) -> Mixed:
    """From features (B, d_m), labels (B,), heads' p_m of the label (B, M), partners (B, M)."""
    n, m = partners.shape
    source = sources(partners)
    labels = y[source]
    p = torch.stack([confidence[source[:, k], k] for k in range(m)], dim=1)
    own = torch.arange(n, device=y.device).repeat(m)
    cosine = torch.stack(
        [F.cosine_similarity(f[source[:, k]], f[own], dim=1) for k, f in enumerate(z)], dim=1
    )
    replaced = ~torch.eye(m, dtype=torch.bool, device=y.device).repeat_interleave(n, dim=0)
    return Mixed(
        source,
        labels,
        p / p.sum(1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny),
        (cosine * replaced).sum(1) / (m - 1),
        (labels != labels[:, :1]).any(dim=1),
    )


def misaligned_losses(log_p: Tensor, mix: Mixed, alpha: Tensor) -> Tensor:
    """L_mis of each mixed sample, (n,), from log p~ of its labels (n, M)."""
    return (1 + (mix.similarity + 1) / 2) * -(alpha * mix.c * log_p).sum(1)


def moved(alpha: Tensor, c: Tensor, predicted: Tensor, eta: float, delta: str) -> Tensor:
    """a (M,) after a batch, from mean c (M,) and mean p~(y_m) / sum_j p~(y_j), (M,)."""
    weakest = F.one_hot(c.argmin(), len(c)).bool()
    change = c - predicted
    change = change.sign() if delta == "sign" else change
    return torch.where(weakest, (alpha + eta * change).clamp(min=1), torch.ones_like(alpha))


class MIDAS(Strategy):
    """Train on samples whose modalities disagree."""

    needs: ClassVar[Needs] = Needs(heads="trained", tasks=frozenset({"multiclass"}), passes=1.1)
    persistent: ClassVar[tuple[str, ...]] = ("alpha",)

    lam: float = hyper(1.0, ge=0)
    eta: float = hyper(0.05, ge=0)
    warmup: float = hyper(0.1, ge=0, le=1)
    delta: Literal["sign", "difference"] = "sign"
    alpha_reset: Literal["never", "epoch"] = "never"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.alpha = torch.empty(0)

    def on_epoch_start(self, ctx: Context) -> None:
        self._names = ctx.modalities
        if not len(self.alpha) or self.alpha_reset == "epoch":
            self.alpha = torch.ones(len(ctx.modalities))

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        weights = joint_weights(ctx.modalities)
        if ctx.epoch <= round(self.warmup * ctx.epochs):
            return weighted_loss(ctx.task, out, batch.y, {**weights, "fused": 0.0})
        aligned = weighted_loss(ctx.task, out, batch.y, weights)
        if self.lam == 0:
            return aligned
        return aligned + self.lam * self._misaligned(ctx, batch, out)

    def _misaligned(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        """Mean L_mis of the batch; moves a on."""
        mix = self._mixed(ctx, batch, out)
        fused = ctx.model.fusion(
            {m: out.features[m][mix.source[:, k]] for k, m in enumerate(ctx.modalities)}
        )
        log_p = fused.float().log_softmax(1).gather(1, mix.labels)
        alpha, n = self.alpha.to(log_p.device), mix.counted.sum()
        losses = misaligned_losses(log_p, mix, alpha)
        with torch.no_grad():
            counted = mix.counted[:, None] / n.clamp(min=1)
            predicted = log_p.softmax(1)  # p~(y_m) / sum_j p~(y_j)
            c, p = (mix.c * counted).sum(0), (predicted * counted).sum(0)
            self.alpha = torch.where(n > 0, moved(alpha, c, p, self.eta, self.delta), alpha)
        return (losses * mix.counted).sum() / n.clamp(min=1)

    @torch.no_grad()
    def _mixed(self, ctx: Context, batch: Batch, out: Output) -> Mixed:
        m, n = len(ctx.modalities), len(batch.y)
        drawn = [torch.randperm(n, generator=ctx.generator) for _ in range(1 if m == 2 else m)]
        partners = torch.stack(drawn, dim=1).expand(n, m).to(batch.y.device)
        confidence = [ctx.task.confidence(out.unimodal[k].float(), batch.y) for k in ctx.modalities]
        features = [out.features[k].float() for k in ctx.modalities]
        return mixed(features, batch.y, torch.stack(confidence, dim=1), partners)

    def log(self) -> dict[str, float]:
        return {f"alpha_{m}": a for m, a in zip(self._names, self.alpha.tolist(), strict=True)}
