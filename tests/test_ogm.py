"""OGM and OGM-GE: which gradients, by how much."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import context, one_batch
from support import (
    FUSIONS,
    build_fit,
    settings,
    strategy_overrides,
)

from miles_repro.strategies.ogm import OGM, coefficients, discrepancy_ratio
from miles_repro.strategies.ogm_ge import OGMGE


@pytest.mark.parametrize("params", ["auto", "conv", "all"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_ogm_scales_the_stronger_encoder_and_nothing_else(
    fusion: str, params: str, tiny_data: Path, tmp_path: Path
) -> None:
    raw = one_batch(
        build_fit(settings(tiny_data, tmp_path, *strategy_overrides("vanilla", fusion)))
    )
    values = {"strategy.params": params, "strategy.alpha": 0.1}
    fit = build_fit(
        settings(tiny_data, tmp_path, *strategy_overrides("ogm", fusion), epochs=10, **values)
    )
    found = one_batch(fit)
    ks = dict(zip(fit.ctx.modalities, cast(OGM, fit.strategy)._seen[0].tolist(), strict=True))
    strong, weak = sorted(ks, key=ks.__getitem__)
    assert 0 < ks[strong] < 1
    assert ks[weak] == 1
    assert found.keys() == raw.keys()
    for name, grad in found.items():
        part, parameter = name.split(":")
        scaled = part == f"encoder.{strong}" and (
            params == "all"
            or grad.ndim == 4
            or (params == "auto" and strong == "audio")  # an encoder without convolutions
        )
        expected = raw[name] * torch.tensor(ks[strong]) if scaled else raw[name]
        assert torch.equal(grad, expected), (name, parameter)


def test_ogm_stops_after_its_share_of_the_epochs(tiny_data: Path, tmp_path: Path) -> None:
    overrides = ("strategy=ogm", "strategy.ends=0.5")
    rows = list(build_fit(settings(tiny_data, tmp_path, *overrides, epochs=4)).epochs())
    acted = [min(row["strategy"].values()) < 1 for row in rows]
    assert acted == [True, True, False, False]


@given(st.lists(st.floats(1e-3, 100), min_size=2, max_size=5), st.floats(0, 3))
def test_ogm_coefficients(scores: list[float], alpha: float) -> None:
    s = torch.tensor(scores, dtype=torch.float64)
    k, rho = coefficients(s, alpha), discrepancy_ratio(s)
    assert bool(((k >= 0) & (k <= 1)).all())
    assert bool((k[rho <= 1] == 1).all())
    assert float(k[s.argmin()]) == 1  # the weakest is never slowed
    others = [sum(scores[i] / scores[j] for j in range(len(s)) if j != i) for i in range(len(s))]
    assert rho.tolist() == pytest.approx([o / (len(s) - 1) for o in others], rel=1e-4)


def test_ogm_of_equal_or_vanishing_scores() -> None:
    for scores in ([3.0, 3.0], [0.0, 0.0]):  # the paper: k = 1 for a tie
        assert coefficients(torch.tensor(scores), 0.8).tolist() == [1.0, 1.0]
    k = coefficients(torch.tensor([1.0, 0.0]), 0.8)
    assert k.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("k", [0.3, 1.0])
def test_ge_noise_has_the_standard_deviation_of_the_raw_gradient(k: float) -> None:
    strategy = OGMGE(alpha=0.8, ends=1.0, params="all", multilabel_score="all")
    ctx = context("a", "b")
    ctx.generator.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    raw = [s * torch.randn(64, 64, 3, 3, generator=generator) + 0.1 * s for s in (1.0, 0.01)]
    grads = [g.clone() for g in raw]
    strategy.modulate(ctx, grads, torch.tensor(k))
    noises = [g - k * r for g, r in zip(grads, raw, strict=True)]
    for noise, r in zip(noises, raw, strict=True):
        n = noise.numel()
        assert float(noise.std() / r.std()) == pytest.approx(1, abs=0.01)
        assert abs(float(noise.mean() / r.std())) < 4 / math.sqrt(n)
        standard = (noise - noise.mean()) / noise.std()
        assert float(standard.pow(4).mean()) == pytest.approx(3, abs=0.1)  # Gaussian
    assert abs(float((noises[0] * noises[1]).mean() / noises[0].std() / noises[1].std())) < 0.02
    again = [g.clone() for g in raw]
    strategy.modulate(ctx, again, torch.tensor(k))
    assert not torch.equal(again[0], grads[0])  # new noise every step
    single = [torch.tensor([2.0])]
    strategy.modulate(ctx, single, torch.tensor(k))
    assert single[0].item() == pytest.approx(2.0 * k)  # one value has no standard deviation


def test_ge_adds_noise_to_both_encoders_and_not_to_the_classifier(
    tiny_data: Path, tmp_path: Path
) -> None:
    ogm, ge = (
        one_batch(build_fit(settings(tiny_data, tmp_path, *strategy_overrides(s))))
        for s in ("ogm", "ogm_ge")
    )
    noisy = {name.split(":")[0] for name in ogm if not torch.equal(ogm[name], ge[name])}
    assert noisy == {"encoder.image", "encoder.audio"}
    for name, grad in ogm.items():  # "auto": convolutions only where there are some
        if name.startswith("encoder.image") and grad.ndim != 4:
            assert torch.equal(grad, ge[name])
