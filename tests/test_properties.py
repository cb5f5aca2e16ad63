"""What must hold of each strategy's and fusion's workings, whatever the numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import rows
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import (
    FUSIONS,
    LR,
    SIZES,
    build_fit,
    parameters,
    same_tensors,
    settings,
    strategy_overrides,
)
from torch import Tensor, nn

from miles_repro import loop
from miles_repro.config import build
from miles_repro.context import Batch, Context
from miles_repro.copies import Curve, held_out, learning_curve
from miles_repro.errors import UserError
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.fusions.film import FiLM
from miles_repro.fusions.gated import Gated
from miles_repro.fusions.sum import Sum
from miles_repro.loop import Fit
from miles_repro.run import run
from miles_repro.strategies import gblend
from miles_repro.strategies.gblend import blend_weights
from miles_repro.strategies.miles import Miles
from miles_repro.strategies.mimo import mimo_loss
from miles_repro.strategies.modality_dropout import ModalityDropout, dropped
from miles_repro.strategies.mslr_d import progress_ratio
from miles_repro.strategies.mslr_s import smoothed
from miles_repro.strategies.ogm import OGM, coefficients, discrepancy_ratio
from miles_repro.strategies.ogm_ge import OGMGE
from miles_repro.strategies.random_lr import RandomLR
from miles_repro.strategies.vanilla import Vanilla

fractions = st.floats(0, 1)
rates = st.floats(1e-6, 1.0)


def context(*modalities: str) -> Context:
    return rows.context(Vanilla(), {m: nn.Identity() for m in modalities}, lr=LR)


def whole_batch(fit: Fit, n: int) -> Batch:
    x, y = fit.train.batch(torch.arange(n))
    return Batch(x, y, torch.arange(n))


def one_batch(fit: Fit) -> dict[str, Tensor]:
    """Gradients of one batch in epoch 1, modulated by the fit's strategy."""
    fit.ctx.epoch = 1
    fit.strategy.on_epoch_start(fit.ctx)
    fit.model.train()
    batch = whole_batch(fit, len(fit.train))
    out = fit.ctx.forward(batch)
    fit.strategy.backward(fit.ctx, batch, out, fit.strategy.loss(fit.ctx, batch, out))
    return {
        f"{part}:{k}": p.grad.clone()
        for part, module in fit.model.parts().items()
        for k, p in module.named_parameters()
        if p.grad is not None
    }


def script_validation(
    monkeypatch: pytest.MonkeyPatch, trace: Sequence[dict[str, float]], key: str = "metric"
) -> None:
    """Make the loop see these validation scores; training itself is real."""
    left = iter(trace)
    values: dict[str, float] = {}
    training = False

    def score(task: Any, logits: dict[str, Tensor], labels: Any) -> dict[str, dict[str, float]]:
        nonlocal values, training
        if len(labels) == SIZES["train"]:
            training = True
            return {k: {"loss": 0.5, "metric": 0.5} for k in logits}
        values = next(left) if training else values  # edited weights are validated once more
        training = False
        return {k: {"loss": 0.5, "metric": 0.5, key: values[k]} for k in logits}

    monkeypatch.setattr(loop, "score", score)


# --- rates ------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(fractions, fractions, fractions), min_size=1, max_size=12),
    fractions,
    st.floats(0.01, 1),
    st.booleans(),
    st.booleans(),
)
def test_miles_never_touches_the_fusion_and_never_compounds(
    trace: list[tuple[float, float, float]], tau: float, mu: float, reset: bool, heads: bool
) -> None:
    ctx = context("a", "b")
    strategy = Miles(tau=tau, mu=mu, reset_other=reset, heads_follow=heads, source="val")
    for fused, a, b in trace:
        scores = {"fused": fused, "a": a, "b": b}
        strategy.on_epoch_end(ctx, {}, {k: {"metric": v} for k, v in scores.items()})
        factors = strategy.state.lr_factors
        assert "fusion" not in factors
        assert set(factors.values()) <= {1.0, mu}
        assert any(g.startswith("head.") for g in factors) == heads
        if reset:
            slowed = {g.split(".")[1] for g, f in factors.items() if f != 1}
            assert len(slowed) <= 1


@pytest.mark.parametrize(
    "strategy, values, ratio",
    [
        ("mslr_k", {}, {"encoder.image": 0.05 / LR, "encoder.audio": 0.01 / LR}),
        (
            "mslr_s",
            {"strategy.s": 1.0},
            dict.fromkeys(("encoder.image", "encoder.audio"), 1.118034),
        ),
        ("static_lr", {"strategy.mu": 0.25}, {"encoder.image": 0.25, "head.image": 0.25}),
        ("ogm", {"strategy.params": "all"}, {}),
    ],
)
def test_under_adam_rates_act_and_constant_gradient_factors_do_not(
    strategy: str, values: dict[str, Any], ratio: dict[str, float], tiny_data: Path, tmp_path: Path
) -> None:
    """The first step's length per group, relative to the same loss without the strategy."""
    one_step = {"batch_size": 26, "epochs": 1}

    def steps(name: str, **values: Any) -> dict[str, float]:
        config = settings(tiny_data, tmp_path, *strategy_overrides(name), **one_step, **values)
        fit = build_fit(config)
        before = {p: [x.detach().clone() for x in m.parameters()] for p, m in parts(fit).items()}
        list(fit.epochs())
        return {
            p: math.sqrt(
                sum(
                    float((x.detach() - x0).square().sum())
                    for x, x0 in zip(m.parameters(), before[p], strict=True)
                )
            )
            for p, m in parts(fit).items()
        }

    def parts(fit: Fit) -> dict[str, nn.Module]:
        return fit.model.parts()

    reference = "vanilla_aux" if strategy == "static_lr" else "vanilla"
    expected, found = steps(reference), steps(strategy, **values)
    for part, length in expected.items():
        assert found[part] / length == pytest.approx(ratio.get(part, 1.0), rel=2e-3), part


@given(st.dictionaries(st.sampled_from("abcd"), rates, min_size=2), fractions)
def test_smoothing_keeps_the_geometric_mean_and_the_order(
    rates: dict[str, float], s: float
) -> None:
    found = smoothed(rates, s)
    assert math.prod(found.values()) == pytest.approx(math.prod(rates.values()), rel=1e-9)
    assert smoothed(rates, 0.0) == pytest.approx(rates)
    assert len({round(math.log(r), 9) for r in smoothed(rates, 1.0).values()}) == 1
    low, high = min(rates.values()), max(rates.values())
    assert all(low * (1 - 1e-9) <= r <= high * (1 + 1e-9) for r in found.values())


@given(rates, fractions)
def test_smoothing_equal_rates_changes_nothing(rate: float, s: float) -> None:
    assert smoothed({"a": rate, "b": rate}, s) == pytest.approx({"a": rate, "b": rate}, rel=1e-12)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=12), st.integers(1, 8))
def test_progress_ratio(history: list[float], window: int) -> None:
    ratio = progress_ratio(history, window)
    if len(history) <= window:
        assert ratio == 1.0
    else:
        previous = history[len(history) - 1 - window : len(history) - 1]
        assert ratio == pytest.approx(history[-1] / (sum(previous) / window))
    assert progress_ratio([0.0] * window + [0.5], window) == 1.0  # a mean of 0


def test_random_lr_draws_every_modality_and_only_by_the_seed() -> None:
    def draws(seed: int) -> list[dict[str, float]]:
        ctx, strategy, found = context("a", "b", "c"), RandomLR(mu=0.5), []
        ctx.generator.manual_seed(seed)
        for _ in range(30):
            strategy.on_epoch_start(ctx)
            found.append(dict(strategy.state.lr_factors))
        return found

    assert draws(0) == draws(0) != draws(1)
    assert {tuple(d.items()) for d in draws(0)} == {
        ((f"encoder.{m}", 0.5), (f"head.{m}", 0.5)) for m in "abc"
    }


# --- gradients --------------------------------------------------------------------------------


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


# --- MSES -------------------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": ("optimizer=sgd", "optimizer.weight_decay=0.1"),
    "adam": ("optimizer=adam", "optimizer.weight_decay=0.1"),
    "adamw": ("optimizer=adamw", "optimizer.weight_decay=0.1"),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("part", ["image", "audio", "fused"])
@pytest.mark.parametrize("criterion", ["metric", "loss"])
def test_mses_freezes_at_the_best_state(
    criterion: str,
    part: str,
    optimizer: str,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Best at epoch 2, stopped after epoch 4; 4 steps an epoch, so 8 steps frozen."""
    sign = 1 if criterion == "metric" else -1
    course = [0.4, 0.6, 0.5, 0.6, 0.9, 0.9]
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    parts = ("fused", "image", "audio")
    trace = [{p: sign * (course if p == part else rising)[e] for p in parts} for e in range(6)]
    script_validation(monkeypatch, trace, criterion)
    values = {"strategy.patience": 1 / 3, "strategy.criterion": criterion, "epochs": 6}
    overrides = ("strategy=mses", *OPTIMIZERS[optimizer])
    fit = build_fit(settings(tiny_data, tmp_path, *overrides, **values))
    groups = ["fusion"] if part == "fused" else [f"encoder.{part}", f"head.{part}"]
    others = [g for g in fit.model.parts() if g not in groups]
    states, rows = [], []
    for row in fit.epochs():
        rows.append(row)
        states.append((parameters(fit, groups), parameters(fit, others)))
    mine, theirs = zip(*states, strict=True)
    assert not same_tensors(mine[0], mine[1])
    assert not same_tensors(mine[1], mine[2])
    for epoch in (3, 4, 5):  # after epochs 4 to 6: epoch 2's weights and buffers, bit for bit
        assert same_tensors(mine[epoch], mine[1])
        assert not same_tensors(theirs[epoch], theirs[epoch - 1])
    assert [row["strategy"] for row in rows] == [{}] * 3 + [{f"stopped_{part}": 4.0}] * 3
    for row in rows:
        frozen = {g for g, lr in row["lr"].items() if lr == 0}
        assert frozen == (set(groups) if row["epoch"] > 4 else set())


def test_mses_ends_when_every_part_has_stopped(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = [dict.fromkeys(("fused", "image", "audio"), 0.9 - 0.1 * e) for e in range(9)]
    falling[1]["audio"] = 0.95
    script_validation(monkeypatch, falling)
    values = {"strategy.patience": 1 / 3, "epochs": 9}
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=mses", **values))
    rows = list(fit.epochs())
    assert len(rows) == 5
    assert rows[-1]["strategy"] == {"stopped_fused": 4, "stopped_image": 4, "stopped_audio": 5}


def test_mses_drops_the_loss_of_a_stopped_part(tiny_data: Path, tmp_path: Path) -> None:
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=mses"))
    batch = whole_batch(fit, 8)
    fit.strategy.stopped = {"audio": 3}  # type: ignore[attr-defined]
    out = fit.ctx.forward(batch)
    loss = fit.strategy.loss(fit.ctx, batch, out)
    expected = fit.task.loss(out.fused, batch.y) + fit.task.loss(out.unimodal["image"], batch.y)
    assert torch.equal(loss, expected)


# --- G-Blend ----------------------------------------------------------------------------------

losses = st.floats(0, 20)
curves = st.dictionaries(
    st.sampled_from(["a", "b", "c", "fused"]), st.builds(Curve, losses, losses, losses, losses)
).filter(len)


@given(curves, st.sampled_from(["clip", "abs"]))
def test_gblend_weights_are_a_distribution(curves: dict[str, Curve], rule: Any) -> None:
    weights = blend_weights(curves, rule)
    assert weights.keys() == curves.keys()
    assert all(w >= 0 for w in weights.values())
    assert sum(weights.values()) == pytest.approx(1)


def test_gblend_rules_for_what_the_source_leaves_open() -> None:
    good, worse = Curve(2, 2, 1, 1.5), Curve(2, 2, 1, 2.5)  # G 0.5 and -0.5, O 0.5 and 1.5
    assert blend_weights({"a": good, "b": worse}, "clip") == {"a": 1.0, "b": 0.0}
    assert blend_weights({"a": good, "b": worse}, "abs") == pytest.approx({"a": 0.9, "b": 0.1})
    signed = blend_weights({"a": good, "b": worse}, "signed")
    assert signed == pytest.approx({"a": 1.125, "b": -0.125})
    flat = Curve(2, 2, 1, 1)  # no overfitting at all: O^2 counts as 1e-4
    assert blend_weights({"a": good, "b": flat})["b"] == pytest.approx(1e4 / (1e4 + 2))
    lost = Curve(2, 2, math.nan, math.nan)
    assert blend_weights({"a": good, "b": lost, "c": Curve(2, 2, 1, math.inf)}) == {
        "a": 1.0,
        "b": 0.0,
        "c": 0.0,
    }
    assert blend_weights({"a": lost, "b": worse}) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_gblend_in_training(
    mode: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"strategy.mode": mode, "strategy.warmup": 2, "strategy.super_epoch": 1, "epochs": 4}
    values |= {"strategy.holdout": 0.2}
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=gblend", **values))
    seen: list[int] = []

    def curve(*args: Any) -> Any:
        before, generator = parameters(fit), torch.get_rng_state()
        found = learning_curve(*args)
        assert same_tensors(parameters(fit), before)  # copies leave the model alone
        assert torch.equal(torch.get_rng_state(), generator)
        seen.append(fit.ctx.epoch)
        return found

    monkeypatch.setattr(gblend, "learning_curve", curve)
    rows = list(fit.epochs())
    for row in rows:
        assert set(row["strategy"]) == {"w_image", "w_audio", "w_fused"}
        assert all(w >= 0 for w in row["strategy"].values())
        assert sum(row["strategy"].values()) == pytest.approx(1)
    assert seen == ([1] * 3 if mode == "offline" else [1] * 3 + [3] * 3 + [4] * 3)
    rows_used = set(fit.ctx.rows.tolist())
    trained, held = held_out(fit.ctx, 0.2)
    assert len(held) == 6
    assert set(trained.tolist()).isdisjoint(held.tolist())
    assert rows_used == (set(range(26)) if mode == "offline" else set(trained.tolist()))
    assert fit.samples == 4 * len(rows_used)


def test_a_copy_trains_one_head_alone_on_the_rows_not_held_out(
    tiny_data: Path, tmp_path: Path
) -> None:
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=gblend"))
    touched: list[int] = []
    original = fit.train.batches

    def batches(order: Tensor, size: int) -> Any:
        touched.extend(order.tolist())
        return original(order, size)

    fit.train.batches = batches  # type: ignore[method-assign]
    trained, held = held_out(fit.ctx, 0.2)
    curve = learning_curve(fit.ctx, "audio", 2, trained, held, "loss")
    # Measured before and after, all of them; trained on twice, the held-out ones never.
    counts = {i: touched.count(i) for i in range(26)}
    assert counts == {i: 2 if i in held.tolist() else 4 for i in range(26)}
    assert curve.train_end < curve.train_start
    assert learning_curve(fit.ctx, "audio", 2, trained, held, "loss") == curve
    as_metric = learning_curve(fit.ctx, "audio", 2, trained, held, "metric")
    assert all(0 <= x <= 1 for x in dataclasses.astuple(as_metric))
    on_val = learning_curve(fit.ctx, "audio", 2, trained, None, "loss")
    assert (on_val.train_start, on_val.train_end) == (curve.train_start, curve.train_end)
    assert on_val.val_end != curve.val_end


def test_rows_are_held_out_by_group(tiny_data: Path, tmp_path: Path) -> None:
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=gblend"))
    fit.train.groups = torch.arange(26) // 4
    trained, held = held_out(fit.ctx, 0.2)
    assert sorted([*trained.tolist(), *held.tolist()]) == list(range(26))
    assert not set((trained // 4).tolist()) & set((held // 4).tolist())
    assert 0.2 * 26 <= len(held) < 0.2 * 26 + 4
    fit.train.groups = torch.zeros(26, dtype=torch.long)
    with pytest.raises(ValueError, match="all training rows are of one group"):
        held_out(fit.ctx, 0.2)


# --- other losses -----------------------------------------------------------------------------


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


# --- fusions ----------------------------------------------------------------------------------

KINDS: dict[str, type[Fusion]] = {"concat": Concat, "sum": Sum, "film": FiLM, "gated": Gated}
widths = st.lists(st.integers(1, 6), min_size=2, max_size=4)


@given(st.sampled_from(sorted(KINDS)), widths, st.integers(2, 5), st.integers(1, 4))
def test_fusions(kind: str, widths: list[int], classes: int, batch: int) -> None:
    fusion_type = KINDS[kind]
    dims = {f"m{i}": d for i, d in enumerate(widths[: fusion_type.max_modalities])}
    torch.manual_seed(sum(widths))
    fusion = fusion_type(dims, classes).double()
    z = {m: torch.randn(batch, d, dtype=torch.float64, requires_grad=True) for m, d in dims.items()}
    fused, unimodal = fusion(z), fusion.unimodal(z)
    assert fused.shape == (batch, classes)
    assert list(unimodal) == list(dims)
    fused.square().sum().backward()
    for m, f in z.items():
        assert unimodal[m].shape == (batch, classes)
        assert f.grad is not None
        assert bool((f.grad != 0).any()), f"no gradient reaches {m}"
        # A modality's own prediction does not look at the others.
        others = {n: g if n == m else torch.randn_like(g) for n, g in z.items()}
        torch.testing.assert_close(fusion.unimodal(others)[m], unimodal[m])
    if kind in ("concat", "sum"):
        torch.testing.assert_close(torch.stack(list(unimodal.values())).sum(0), fused)
    else:
        zero = {m: torch.zeros_like(f) for m, f in z.items()}
        for m, f in z.items():
            torch.testing.assert_close(unimodal[m], fusion({**zero, m: f}))


@given(widths, st.integers(2, 4))
def test_linear_unimodal_logits_are_their_closed_form(widths: list[int], classes: int) -> None:
    dims = {f"m{i}": d for i, d in enumerate(widths)}
    z = {m: torch.randn(3, d) for m, d in dims.items()}
    concat = Concat(dims, classes)
    start = 0
    for m, d in dims.items():
        block = concat.linear.weight[:, start : start + d]
        expected = z[m] @ block.T + concat.linear.bias / len(dims)
        torch.testing.assert_close(concat.unimodal(z)[m], expected)
        start += d
    summed = Sum(dims, classes)
    assert set(summed.project) == {m for m, d in dims.items() if d != max(widths)}
    for m in dims:
        width = summed.project[m](z[m]) if m in summed.project else z[m]
        expected = width @ summed.linear.weight.T + summed.linear.bias / len(dims)
        torch.testing.assert_close(summed.unimodal(z)[m], expected)


@pytest.mark.parametrize("kind, option", [("film", "condition"), ("gated", "gate")])
def test_which_modality_conditions(kind: str, option: str) -> None:
    dims = {"a": 3, "b": 5}
    node = {"name": kind, "_target_": f"miles_repro.fusions.{kind}.{KINDS[kind].__name__}"}
    for chosen, other in (("a", "b"), ("b", "a")):
        fusion = build({**node, option: chosen}, dims, 4)
        assert fusion.target == other
        assert fusion({m: torch.randn(2, d) for m, d in dims.items()}).shape == (2, 4)
    assert build(node, dims, 4).target == "b"
    with pytest.raises(UserError, match=rf"{kind}: {option}='c' is not a modality"):
        build({**node, option: "c"}, dims, 4)
