"""MIMO and modality dropout; the same start for every strategy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from properties import whole_batch
from rows import context
from support import (
    build_fit,
    parameters,
    same_tensors,
    settings,
    strategy_overrides,
)
from torch import nn

from miles_repro.context import Batch
from miles_repro.errors import UserError
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.fusions.late import Late
from miles_repro.fusions.sum import Sum
from miles_repro.run import run
from miles_repro.strategies.mimo import mimo_loss
from miles_repro.strategies.modality_dropout import ModalityDropout, dropped
from miles_repro.strategies.tcmax import TCMax, total_correlation


@given(st.floats(0, 5), st.lists(st.floats(0, 5), min_size=1, max_size=4), st.floats(0.05, 2))
def test_mimo_is_a_smooth_maximum(fused: float, unimodal: list[float], smoothing: float) -> None:
    heads = torch.tensor(unimodal, dtype=torch.float64, requires_grad=True)
    loss = mimo_loss(torch.tensor(fused, dtype=torch.float64), list(heads), 10.0, smoothing)
    worst = (loss.item() - fused) / 10
    assert max(unimodal) - 1e-9 <= worst
    assert worst <= max(unimodal) + smoothing * math.log(len(unimodal)) + 1e-9
    loss.backward()
    assert heads.grad is not None
    assert heads.grad.sum().item() == pytest.approx(10)


@given(st.integers(2, 4), st.floats(0, 0.5), st.integers(0, 9))
def test_dropout_never_loses_every_modality(n: int, p: float, seed: int) -> None:
    p = min(p, 1 / n)
    if p == 0:
        return
    lost = dropped(500, n, p, torch.Generator().manual_seed(seed))
    assert int(lost.min()) >= 0
    assert int(lost.max()) <= n
    assert abs(float((lost == 0).float().mean()) - p) < 5 * math.sqrt(p * (1 - p) / 500) + 1e-9


def test_dropout_zeroes_whole_features_while_training_only(tiny_data: Path, tmp_path: Path) -> None:
    overrides = ("strategy=modality_dropout", "strategy.p=0.4")
    fit = build_fit(settings(tiny_data, tmp_path, *overrides))
    strategy = cast(ModalityDropout, fit.strategy)
    z = {m: torch.rand(200, d) + 1 for m, d in (("image", 5), ("audio", 3))}
    found = strategy.features(fit.ctx, Batch({}, torch.zeros(200), torch.arange(200)), z)
    rows = {m: (f == 0).all(1) for m, f in found.items()}
    for m, f in found.items():
        assert torch.equal(f[~rows[m]], z[m][~rows[m]])
        assert 0.25 < float(rows[m].float().mean()) < 0.55
    assert not (rows["image"] & rows["audio"]).any()
    batch = whole_batch(fit, 20)
    training = [fit.ctx.forward(batch).features["audio"] for _ in range(2)]
    assert all((z == 0).all(1).any() for z in training)
    assert not torch.equal(*training)
    assert not any((z == 0).all(1).any() for z in fit.ctx.observe("val").features.values())


def test_dropout_beyond_one_modality_a_sample_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    config = settings(
        tiny_data, tmp_path, "strategy=modality_dropout", "strategy.p=0.4", dataset="tiny_three"
    )
    with pytest.raises(UserError, match=r"modality_dropout: p=0.4 is above 1 / 3 modalities"):
        run(config, "test")


@pytest.mark.parametrize("strategy", ["miles", "ogm", "gblend", "mimo", "mslr_k"])
def test_every_strategy_starts_from_the_same_weights(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    parts = ["encoder.image", "encoder.audio", "fusion"]
    plain, other = (
        build_fit(settings(tiny_data, tmp_path, *strategy_overrides(s)))
        for s in ("vanilla", strategy)
    )
    assert same_tensors(parameters(plain, parts), parameters(other, parts))
    assert torch.equal(plain.recipe.order(26, 1), other.recipe.order(26, 1))
    reseeded = build_fit(settings(tiny_data, tmp_path, *strategy_overrides(strategy), seed=1))
    assert not same_tensors(parameters(reseeded, parts), parameters(other, parts))
    assert not torch.equal(plain.recipe.order(26, 1), plain.recipe.order(26, 2))


@pytest.mark.parametrize("fusion", [Concat, Sum, Late])
def test_tcmax_sums_over_all_pairs_without_running_them(fusion: type[Fusion]) -> None:
    """Fusions that add their terms: the closed form is the loss over every combination."""
    torch.manual_seed(0)
    strategy, size = TCMax(), 7
    model = fusion({"a": 3, "b": 3}, 4)
    z = {m: torch.randn(size, 3) for m in "ab"}
    ctx = context(strategy, {m: nn.Identity() for m in z}, model)
    batch = Batch(z, torch.arange(size) % 4, torch.arange(size))
    left, right = torch.cartesian_prod(torch.arange(size), torch.arange(size)).T
    crossed = model({"a": z["a"][left], "b": z["b"][right]})
    want = total_correlation(model(z), batch.y, crossed)
    torch.testing.assert_close(strategy.loss(ctx, batch, ctx.forward(batch)), want)


def test_tcmax_draws_where_all_combinations_are_too_many() -> None:
    ctx = context(TCMax(), {m: nn.Identity() for m in "abc"}, Late(dict.fromkeys("abc", 2), 2))
    assert TCMax().combinations(ctx, 40).shape == (3, 40**3)
    assert TCMax().combinations(ctx, 41).shape == (3, 1024)
