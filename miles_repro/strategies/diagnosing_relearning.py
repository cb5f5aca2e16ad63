"""Diagnosing & Re-learning (Wei et al., ECCV 2024, Eq. 3-6, Algorithm 1).

Rule      After every ``every`` x epochs (the first such epoch comes one later, as in the code), at
          most ``most`` times, for each encoder: its features of all training and of all
          validation rows are scaled to [-1, 1] within their split, clustered by k-means with as
          many clusters as classes, and P = (1 / N) sum over clusters of the largest class count.
          g_m = |P_train - P_val|, a_m = tanh(lam g_m), theta <- (1 - a_m) theta + a_m theta_0,
          theta_0 the encoder's initial parameters. Statistics of normalisation, the fusion and,
          unless ``reset_optimizer_state``, the optimizer's moments stay as they are.
Loss      L_AB.
Defaults  lam 3 (the paper's CREMA-D value); every 0.22 (20 of the script's 90 epochs), most 3 (the
          code; the paper's algorithm has no limit).
Search    lam {1, 3, 5, 7, 9}, every {0.05, 0.11, 0.22}.
Deviations from the official code
          features are taken without augmentation; k-means (one start by k-means++) has a seed
          of the run. The code chooses its best epoch on the test split.
Supports  any fusion and number of modalities. One label a sample: there are no classes to cluster
          by otherwise. The validation split needs as many samples as there are classes.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from miles_repro.context import Context
from miles_repro.hyper import hyper
from miles_repro.strategy import Needs, Strategy

Array = NDArray[np.generic]


def due(epoch: int, every: int, done: int, most: int) -> bool:
    """Whether encoders are diagnosed after ``epoch``, which counts from 0."""
    return epoch > 0 and epoch % every == 0 and done < most


def scaled(z: Array) -> Array:
    """Every feature of z (N, d) from -1 to 1; a constant one is -1."""
    low, span = z.min(0), np.ptp(z, 0)
    return 2 * (z - low) / np.where(span > 0, span, 1) - 1


def purity(labels: Array, clusters: Array) -> float:
    """Share of samples (N,) whose label is the commonest of their cluster."""
    counts = [np.unique(labels[clusters == c], return_counts=True)[1] for c in np.unique(clusters)]
    return float(sum(c.max() for c in counts) / len(labels))


def separability(z: Tensor, y: Tensor, num_classes: int, seed: int = 0) -> float:
    """P: purity of k-means clusters of features z (N, d)."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    means = KMeans(num_classes, n_init=1, random_state=seed % 2**32)
    with threadpool_limits(1):  # several threads add up in any order
        clusters = means.fit_predict(scaled(z.double().cpu().numpy()))
    return purity(y.cpu().numpy(), clusters)


class DiagnosingRelearning(Strategy):
    """Send encoders that overfit part of the way back."""

    needs: ClassVar[Needs] = Needs(tasks=frozenset({"multiclass"}), passes=1.1)
    persistent: ClassVar[tuple[str, ...]] = ("done", "strength", "initial")

    lam: float = hyper(3.0, ge=0)
    every: float = hyper(0.22, gt=0, le=1)
    most: int = hyper(3, ge=0)
    reset_optimizer_state: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.done = 0
        self.strength: dict[str, float] = {}

    def setup(self, ctx: Context) -> None:
        n = len(ctx.parts["val"]) if "val" in ctx.parts else ctx.task.num_classes
        if n < ctx.task.num_classes:
            raise ValueError(f"{n} validation samples make no {ctx.task.num_classes} clusters")
        self.initial = {
            m: {k: p.detach().clone() for k, p in encoder.named_parameters()}
            for m, encoder in ctx.model.encoders.items()
        }

    def on_epoch_end(self, ctx: Context, train: object, val: object) -> None:
        every = max(1, round(self.every * ctx.epochs))
        if not due(ctx.epoch - 1, every, self.done, self.most):
            return
        seen = [ctx.observe("train", ctx.rows), ctx.observe("val")]
        if not all(z.isfinite().all() for o in seen for z in o.features.values()):
            return  # nothing to cluster; the run is about to end as diverged
        for m in ctx.modalities:
            found = [
                separability(
                    o.features[m], o.labels, ctx.task.num_classes, ctx.seed_of("clusters", m)
                )
                for o in seen
            ]
            self.strength[m] = float(np.tanh(self.lam * abs(found[0] - found[1])))
            ctx.reset(f"encoder.{m}", self.initial[m], self.strength[m], self.reset_optimizer_state)
        self.done += 1

    def log(self) -> dict[str, float]:
        return {f"reset_{m}": a for m, a in self.strength.items()}
