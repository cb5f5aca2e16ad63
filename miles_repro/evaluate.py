"""What a model predicts: fused, each modality alone, each modality missing or noisy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from miles_repro.data.prepared import Part
from miles_repro.miles import conditional_utilization, utilization_gap
from miles_repro.model import Multimodal
from miles_repro.seeding import derive
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
def predict(model: Multimodal, part: Part, batch_size: int) -> Prediction:
    """Run the split once."""
    model.eval()
    logits: list[dict[str, Tensor]] = []
    features: list[dict[str, Tensor]] = []
    for x, _ in part.batches(torch.arange(len(part)), part.within_memory(batch_size)):
        out = model(x)
        logits.append({"fused": out.fused, **out.unimodal})
        features.append(out.features)
    return Prediction(cat_logits(logits), cat_logits(features))


@torch.inference_mode()
def noisy_feature(model: Multimodal, part: Part, modality: str, level: float, seed: int) -> Tensor:
    """Feature (N, d) of ``modality`` with noise of ``level`` standard deviations on its input."""
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    features: list[Tensor] = []
    for x, _ in part.batches(torch.arange(len(part)), NOISE_BATCH, only=modality):
        draw = torch.randn(x[modality].shape, generator=generator).to(x[modality].device)
        features.append(model.encoders[modality](x[modality] + level * draw))
    return torch.cat(features)


def score(task: Task, logits: dict[str, Tensor], y: Tensor) -> dict[str, Score]:
    """Scores of ``fused`` and every modality; one transfer from the device for all of them."""
    heads, y = torch.stack(list(logits.values())).cpu(), y.cpu()
    return {k: task.score(v, y) for k, v in zip(logits, heads, strict=True)}


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
    model: Multimodal, task: Task, val: Prediction, test: Part, predicted: Prediction, seed: int
) -> dict[str, Any]:
    """``missing`` and ``noise`` of the run record, on the test split.

    A missing modality's feature is replaced by zero, or by its mean over the validation set.
    Token ids take no noise, so such a modality has no ``noise`` entry. Only what differs from
    ``predicted`` is computed: one encoder for noise, none for a missing modality.
    """

    def with_feature(m: str, z: Tensor) -> Score:
        return task.score(model.fusion({**predicted.features, m: z}), test.labels)

    missing: dict[str, dict[str, Score]] = {}
    noise: dict[str, dict[str, Score]] = {}
    if len(predicted.features) == 1:
        return {"missing": missing, "noise": noise}
    sample, _ = test.batch(torch.arange(1))
    for m, z in predicted.features.items():
        missing[m] = {
            "zero": with_feature(m, torch.zeros_like(z)),
            "mean": with_feature(m, val.features[m].mean(0).expand_as(z)),
        }
        if sample[m].is_floating_point():
            noise[m] = {
                str(level): with_feature(
                    m, noisy_feature(model, test, m, level, derive(seed, "noise", m, level))
                )
                for level in NOISE_LEVELS
            }
    return {"missing": missing, "noise": noise}
