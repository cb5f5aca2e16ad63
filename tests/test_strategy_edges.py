"""Strategies where a model or a task leaves something of their rule without meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from rows import context
from support import build_fit, same_tensors, settings, strategy_overrides
from torch import nn

from miles_repro.context import Batch, Teacher
from miles_repro.fusions.late import Late
from miles_repro.strategies import agm, cggm, g2d, lfm, mbsd, midas
from miles_repro.strategies.sample_valuation import SampleValuation
from miles_repro.strategies.ume import UME
from miles_repro.tasks import TASKS, Multiclass


@pytest.mark.parametrize(
    "strategy, values",
    [
        *[(name, {}) for name in ("arl", "cggm", "inforeg", "mmpareto", "ogm", "ogm_ge")],
        ("mlb", {"strategy.apply": "grad"}),
        ("pdmp", {"strategy.apply": "grad"}),
    ],
)
def test_an_encoder_without_gradient_stays_as_it_is(
    strategy: str, values: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    """As one that is not fine-tuned: the other one trains."""
    fit = build_fit(settings(tiny_data, tmp_path, *strategy_overrides(strategy), **values))
    encoder = fit.model.encoders["audio"]
    encoder.forward = torch.no_grad()(encoder.forward)  # type: ignore[method-assign]
    before = {m: copies_of(fit.model.encoders[m]) for m in ("image", "audio")}
    assert len(list(fit.epochs())) == fit.recipe.epochs
    assert same_tensors(before["audio"], copies_of(encoder))
    assert not same_tensors(before["image"], copies_of(fit.model.encoders["image"]))


def copies_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"multiclass", "multilabel"}))
def test_models_vote_on_one_output(task: str) -> None:
    """A softmax over one logit would say nothing."""
    ctx = context(
        UME(rule="prob_mean"),
        {m: nn.Linear(2, 2) for m in "av"},
        Late(dict.fromkeys("av", 2), 1),
        task=TASKS[task](1),
        heads={m: nn.Linear(2, 1) for m in "av"},
        teachers={m: a_teacher(seed) for seed, m in enumerate("av")},
    )
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    out = ctx.model({"a": x, "v": x})
    votes = torch.stack([out.unimodal[m] for m in "av"])
    if task == "binary":
        want = votes.sigmoid().mean(0)
        torch.testing.assert_close(ctx.hooks.predict(ctx, out).sigmoid(), want)
    else:
        torch.testing.assert_close(ctx.hooks.predict(ctx, out), votes.mean(0))


def a_teacher(seed: int) -> Teacher:
    torch.manual_seed(seed)
    return Teacher(nn.Linear(2, 2), nn.Linear(2, 1), 0.5)


@pytest.mark.parametrize("task, want", [("binary", 0.110944), ("regression", 1.0)])
@torch.no_grad()
def test_distillation_of_one_output(task: str, want: float) -> None:
    """KL(Bernoulli(sigmoid(1)) || Bernoulli(1/2)), and (1 - 0)^2; a softmax would give 0."""
    strategy = g2d.G2D(w_feature=0.0)
    ctx = context(
        strategy,
        {m: nn.Linear(2, 2) for m in "av"},
        Late(dict.fromkeys("av", 2), 1),
        task=TASKS[task](1),
        teachers={m: a_teacher(0) for m in "av"},
    )
    batch = Batch({m: torch.zeros(1, 2) for m in "av"}, torch.zeros(1), torch.arange(1))
    out = ctx.forward(batch)
    out.fused = torch.zeros(1, 1)
    strategy._taught = {"a": (out.features["a"], torch.ones(1, 1))}
    apart = strategy.loss(ctx, batch, out) - ctx.task.loss(out.fused, batch.y)
    assert float(apart) == pytest.approx(want, abs=1e-5)


def test_sample_valuation_shows_modalities_with_the_others_at_zero() -> None:
    ctx = context(SampleValuation(), {m: nn.Linear(2, 3) for m in "av"})
    x = {m: torch.ones(1, 2) for m in "av"}
    out = ctx.model(x)
    alone = ctx.logits(out)["a"]
    z = out.features
    torch.testing.assert_close(alone, ctx.model.fusion({"a": z["a"], "v": 0 * z["v"]}))


def test_changes_of_accuracy_that_cancel_scale_nothing() -> None:
    """In single precision .53 - .50 and .41 - .44 leave 3e-8."""
    task, y = Multiclass(2), torch.zeros(100, dtype=torch.int64)

    def accuracy(right: int) -> torch.Tensor:
        return cggm.accuracy(
            task, torch.tensor([[1.0, 0.0]] * right + [[0.0, 1.0]] * (100 - right)), y
        )

    for before, after in (((50, 44), (53, 41)), ((53, 41), (50, 44))):
        change = torch.stack(
            [accuracy(b) - accuracy(a) for a, b in zip(before, after, strict=True)]
        )
        assert cggm.coefficients(change).tolist() == [1.0, 1.0]


def test_relearning_leaves_a_run_that_diverges_alone(tiny_data: Path, tmp_path: Path) -> None:
    fit = build_fit(
        settings(
            tiny_data,
            tmp_path,
            *("strategy=diagnosing_relearning", "fusion=concat"),
            **{"strategy.every": 0.2, "epochs": 5},
        )
    )
    for row in fit.epochs():
        if row["epoch"] == 1:  # the first epoch that is due is the second
            with torch.no_grad():
                next(fit.model.encoders["audio"].parameters()).fill_(float("nan"))
    assert fit.diverged
    assert fit.epoch == 2


def test_probabilities_of_zero_have_finite_losses_and_gradients() -> None:
    far = torch.tensor([[200.0, 0.0]], requires_grad=True)
    near = torch.tensor([[0.0, 200.0]], requires_grad=True)
    y = torch.tensor([0])
    for loss in (
        mbsd.distillation_official([far, near], y),
        lfm.alignment([far, near]),
    ):
        assert loss.isfinite()
        for gradient in torch.autograd.grad(loss, [far, near], retain_graph=True):
            assert gradient.isfinite().all()
    z = [torch.randn(2, 3) for _ in "av"]
    mix = midas.mixed(z, torch.tensor([0, 1]), torch.zeros(2, 2), torch.tensor([[1, 1], [0, 0]]))
    assert mix.c.eq(0).all()


def test_agm_knows_blank_inputs_before_its_first_step(tiny_data: Path, tmp_path: Path) -> None:
    """A model read back from its weights takes none."""
    fit = build_fit(settings(tiny_data, tmp_path, "strategy=agm", "fusion=concat"))
    assert isinstance(fit.strategy, agm.AGM)
    x, _ = fit.train.batch(torch.arange(1))
    assert same_tensors(fit.strategy.blank, {m: torch.zeros_like(one) for m, one in x.items()})
