"""What a model predicts: fused, each modality alone, each modality missing or noisy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from miles_repro.data.prepared import Part
from miles_repro.model import Multimodal
from miles_repro.seeding import derive
from miles_repro.strategies.miles import conditional_utilization, utilization_gap
from miles_repro.tasks import Score, Task

NOISE_LEVELS = (0.5, 1.0, 2.0)
"""Standard deviations of the noise added to a modality's normalised input."""
NOISE_BATCH = 64
"""Noise is drawn batch by batch: a fixed size keeps it out of reach of runtime.eval_batch_size."""


@dataclass
class Prediction:
    """Logits (N, C) of ``fused`` and each modality, and features (N, d_m), of a whole split."""

    logits: dict[str, Tensor]
    features: dict[str, Tensor]


def cat_logits(outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {k: torch.cat([o[k] for o in outputs]) for k in outputs[0]}


@torch.inference_mode()
def predict(
    model: Multimodal, part: Part, batch_size: int, noise: tuple[str, float, int] | None = None
) -> Prediction:
    """Run the split once. ``noise`` = (modality, standard deviations, seed) disturbs its input."""
    model.eval()
    generator = torch.Generator()
    if noise:
        batch_size = NOISE_BATCH
        generator.manual_seed(noise[2])
    logits: list[dict[str, Tensor]] = []
    features: list[dict[str, Tensor]] = []
    for x, _ in part.batches(torch.arange(len(part)), batch_size):
        if noise:
            m, level, _ = noise
            draw = torch.randn(x[m].shape, generator=generator).to(x[m].device)
            x = {**x, m: x[m] + level * draw}
        out = model(x)
        logits.append({"fused": out.fused, **out.unimodal})
        features.append(out.features)
    return Prediction(cat_logits(logits), cat_logits(features))


def score(task: Task, logits: dict[str, Tensor], y: Tensor) -> dict[str, Score]:
    """Scores of ``fused`` and every modality."""
    return {k: task.score(v, y) for k, v in logits.items()}


def utilization(scores: dict[str, Score]) -> dict[str, float]:
    """u_m of every modality and delta (MILES Eq. 4, 5), from one split's metrics."""
    fused = scores["fused"]["metric"]
    unimodal = {m: s["metric"] for m, s in scores.items() if m != "fused"}
    if len(unimodal) < 2:
        return {}
    return {
        **conditional_utilization(fused, unimodal),
        "delta": utilization_gap(fused, unimodal),
    }


@torch.inference_mode()
def robustness(
    model: Multimodal,
    task: Task,
    val: Prediction,
    test: Part,
    predicted: Prediction,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """``missing`` and ``noise`` of the run record, on the test split.

    A missing modality's feature is replaced by zero, or by its mean over the validation set.
    Token ids take no noise, so such a modality has no ``noise`` entry.
    """
    missing: dict[str, dict[str, Score]] = {}
    noise: dict[str, dict[str, Score]] = {}
    for m, z in predicted.features.items():
        if len(predicted.features) == 1:
            break
        fill = {"zero": torch.zeros_like(z), "mean": val.features[m].mean(0).expand_as(z)}
        missing[m] = {
            kind: task.score(model.fusion({**predicted.features, m: value}), test.labels)
            for kind, value in fill.items()
        }
        sample, _ = test.batch(torch.arange(1))
        if sample[m].is_floating_point():
            noise[m] = {
                str(level): task.score(
                    predict(
                        model, test, batch_size, (m, level, derive(seed, "noise", m, level))
                    ).logits["fused"],
                    test.labels,
                )
                for level in NOISE_LEVELS
            }
    return {"missing": missing, "noise": noise}
