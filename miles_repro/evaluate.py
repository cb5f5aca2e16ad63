"""What a trained model is worth: scores, two instruments for encoders, missing and noisy inputs.

A modality's own prediction can be read in two ways, and both are taken in every run: ``split``, the
share of the fusion's logits (or the fusion with the other features at zero), and ``probe``, a
linear classifier fitted on the frozen features afterwards. They measure different things, so a
difference between strategies is only read by one and the same instrument.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from miles_repro.context import Context, Observation, evaluating
from miles_repro.miles import conditional_utilization, utilization_gap
from miles_repro.seeding import derive
from miles_repro.tasks import Score, Task

if TYPE_CHECKING:
    from miles_repro.data.reader import Part

NOISE_LEVELS = (0.5, 1.0, 2.0)
"""Standard deviations of the noise added to a modality's normalised input."""
NOISE_BATCH = 64
"""Noise is drawn batch by batch: a fixed size keeps it out of reach of runtime.eval_batch_size."""
SUBSETS_UP_TO = 4
"""With more modalities than this, only one at a time is left out."""
PROBE_DECAY, PROBE_STEPS, PROBE_TOLERANCE = 1e-3, 100, 1e-4
"""A probe: L2 penalty of its weights (features have unit variance), most iterations of L-BFGS, and
the largest entry of the gradient at which it ends: on mfeat, 99.7 % of its predictions are then
those of the minimum."""


def score(task: Task, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Score]:
    """Scores of ``fused`` and every modality; one transfer from the device for all of them."""
    if not logits:
        return {}
    heads, y = torch.stack(list(logits.values())).cpu(), y.cpu()
    return {k: task.score(v, y) for k, v in zip(logits, heads, strict=True)}


def utilization(scores: Mapping[str, Score]) -> dict[str, float]:
    """u_m of every modality and delta (MILES Eq. 4, 5), from one split's metrics."""
    fused = scores["fused"]["metric"]
    unimodal = {m: s["metric"] for m, s in scores.items() if m != "fused"}
    if len(unimodal) < 2:
        return {}
    return {
        **conditional_utilization(fused, unimodal),
        "delta": utilization_gap(fused, unimodal),
    }


@torch.no_grad()
def split_logits(ctx: Context, seen: Observation) -> dict[str, Tensor]:
    """Each modality's logits (N, C) as the fusion gives them, whatever heads the model has."""
    with evaluating(ctx.model):
        return ctx.model.fusion.unimodal(seen.features)


def fit_probe(task: Task, z: Tensor, y: Tensor) -> nn.Module:
    """A linear classifier on features z (N, d), fitted to its minimum: no seed, no rate to tune.

    The same for every strategy: standardised features, the task's loss, an L2 penalty, full-batch
    L-BFGS from zero. It reads the features and can move nothing.
    """
    z = z.detach().float()
    mean, std = z.mean(0), z.std(0, correction=0)
    scaled = (z - mean) / std.clamp(min=1e-6)
    linear = skip_init(nn.Linear, z.shape[1], task.num_classes, device=z.device)  # draws nothing
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    if not bool(scaled.isfinite().all()):  # of a run that diverged
        return linear.requires_grad_(False)
    optimizer = torch.optim.LBFGS(
        linear.parameters(),
        max_iter=PROBE_STEPS,
        tolerance_grad=PROBE_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = task.loss(linear(scaled), y) + PROBE_DECAY * linear.weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():  # for features as they come
        linear.weight.div_(std.clamp(min=1e-6))
        linear.bias.sub_(linear.weight @ mean)
    return linear.requires_grad_(False)


def instruments(
    ctx: Context, train: Observation, seen: Mapping[str, Observation]
) -> dict[str, dict[str, dict[str, Score]]]:
    """``split`` and ``probe`` -> split of the data -> modality -> score."""
    probes = {m: fit_probe(ctx.task, z, train.labels) for m, z in train.features.items()}
    return {
        "split": {
            name: score(ctx.task, split_logits(ctx, one), one.labels) for name, one in seen.items()
        },
        "probe": {
            name: score(
                ctx.task, {m: p(one.features[m].float()) for m, p in probes.items()}, one.labels
            )
            for name, one in seen.items()
        },
    }


def missing(ctx: Context, val: Observation, test: Observation) -> dict[str, dict[str, Score]]:
    """Fused scores without some modalities: their names joined by + -> replacement -> score.

    A missing modality's feature is replaced by zero, or by its mean over the validation set.
    """
    names = list(test.features)
    most = len(names) - 1 if len(names) <= SUBSETS_UP_TO else min(1, len(names) - 1)
    found = {}
    for size in range(1, most + 1):
        for lost in itertools.combinations(names, size):
            fills = {
                "zero": {m: torch.zeros_like(test.features[m]) for m in lost},
                "mean": {m: val.features[m].mean(0).expand_as(test.features[m]) for m in lost},
            }
            found["+".join(lost)] = {k: _with(ctx, test, z) for k, z in fills.items()}
    return found


def noise(ctx: Context, part: Part, test: Observation, seed: int) -> dict[str, dict[str, Score]]:
    """Fused scores with noise on one modality's input: modality -> level -> score.

    Token ids take no noise, so such a modality has no entry. Only the noisy encoder runs again.
    """
    if len(test.features) < 2:
        return {}
    sample, _ = part.batch(torch.arange(1))
    return {
        m: {
            str(level): _with(
                ctx,
                test,
                {m: noisy_feature(ctx, part, m, level, derive(seed, "noise", m, level))},
            )
            for level in NOISE_LEVELS
        }
        for m in test.features
        if sample[m].is_floating_point()
    }


@torch.no_grad()
def _with(ctx: Context, seen: Observation, features: Mapping[str, Tensor]) -> Score:
    """Fused score with some features replaced."""
    with evaluating(ctx.model):
        out = ctx.model.fuse({**seen.features, **features})
        return ctx.task.score(ctx.hooks.predict(ctx, out), seen.labels)


@torch.no_grad()
def noisy_feature(ctx: Context, part: Part, modality: str, level: float, seed: int) -> Tensor:
    """Feature (N, d) of ``modality`` with noise of ``level`` standard deviations on its input."""
    generator = torch.Generator().manual_seed(seed)
    encoder = ctx.model.encoders[modality]
    features: list[Tensor] = []
    with evaluating(encoder):
        for x, _ in part.batches(torch.arange(len(part)), NOISE_BATCH, only=modality):
            draw = torch.randn(x[modality].shape, generator=generator).to(x[modality].device)
            features.append(encoder(x[modality] + level * draw))
    return torch.cat(features)


def results(ctx: Context, best: Mapping[str, Score], test_part: Part, seed: int) -> dict[str, Any]:
    """Everything measured on the best weights, which the model holds: the test split's only use.

    best: the validation scores of these weights.
    """
    train, val, test = ctx.observe("train", ctx.rows), ctx.observe("val"), ctx.look(test_part)
    test_scores = score(ctx.task, test.logits, test.labels)
    return {
        "val": dict(best),
        "test": test_scores,
        "instruments": instruments(ctx, train, {"val": val, "test": test}),
        "utilization": {"val": utilization(best), "test": utilization(test_scores)},
        "missing": missing(ctx, val, test),
        "noise": noise(ctx, test_part, test, seed),
        "predictions": {**test.logits, "labels": test.labels},
    }
