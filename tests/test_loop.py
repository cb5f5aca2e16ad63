"""The loop in the fewest lines that do the same; which weights it keeps."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support import (
    STRATEGIES,
    build_fit,
    same_tensors,
    settings,
    strategy_overrides,
)
from torch import Tensor

from miles_repro import loop
from miles_repro.evaluate import score


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_the_loop_is_these_lines(schedule: str, tiny_data: Path, tmp_path: Path) -> None:
    """Vanilla training of two modalities, written out by hand."""
    values = {
        "optimizer.clip_norm": 1.0,
    }
    values["optimizer.weight_decay"] = 0.01
    if schedule == "step":
        values["optimizer.schedule.every"] = 1
    choice = f"optimizer/schedule={schedule}"
    config = settings(tiny_data, tmp_path, *strategy_overrides("vanilla"), choice, **values)
    fit = build_fit(config)
    model = copy.deepcopy(fit.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.optimizer.lr, weight_decay=0.01)
    by_torch: dict[str, Any] = {
        "constant": lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, config.epochs),
        "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.1),
    }
    torch_schedule = by_torch[schedule](optimizer)
    for row in fit.epochs():
        model.train()
        wrong = total = 0
        summed = 0.0
        for index in fit.recipe.order(len(fit.train), row["epoch"]).split(config.batch_size):
            x, y = fit.train.batch(index)
            z = {m: model.encoders[m](x[m]) for m in ("image", "audio")}
            logits = model.fusion.linear(torch.cat([z["image"], z["audio"]], dim=1))
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            wrong += int((logits.argmax(1) != y).sum())
            total += len(y)
            summed += loss.item() * len(y)
        assert row["lr"]["fusion"] == pytest.approx(optimizer.param_groups[0]["lr"])
        torch_schedule.step()
        assert total == 26  # the last, smaller batch counts too
        assert row["train"]["fused"]["metric"] == pytest.approx(1 - wrong / total)
        assert row["train"]["fused"]["loss"] == pytest.approx(summed / total, rel=1e-4)
        model.eval()
        x, y = fit.val.batch(torch.arange(len(fit.val)))
        with torch.no_grad():
            expected = F.cross_entropy(model(x).fused, y).item()
        assert row["val"]["fused"]["loss"] == pytest.approx(expected, rel=1e-4)


def test_linear_unimodal_scores_belong_to_the_fused_ones(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running training logits of all heads come from the same weights, before the step."""
    seen: list[dict[str, Tensor]] = []

    def spy(task: Any, logits: dict[str, Tensor], y: Tensor) -> Any:
        seen.append(logits)
        return score(task, logits, y)

    monkeypatch.setattr(loop, "score", spy)
    list(build_fit(settings(tiny_data, tmp_path, *strategy_overrides("vanilla"))).epochs())
    for logits in seen:
        torch.testing.assert_close(logits["image"] + logits["audio"], logits["fused"])


@pytest.mark.parametrize(
    "course, best",
    [([0.1, 0.5, 0.5, 0.4], 2), ([0.3, 0.3, 0.3, 0.3], 1), ([0.1, 0.2, 0.3, 0.9], 4)],
)
def test_best_epoch_is_the_first_best_by_validation(
    course: list[float],
    best: int,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter([v for x in course for v in (1.0 - x, x)])  # training scores say the opposite

    def scripted(task: Any, logits: dict[str, Tensor], y: Tensor) -> Any:
        value = next(left)
        return {k: {"loss": value, "metric": value} for k in logits}

    monkeypatch.setattr(loop, "score", scripted)
    config = settings(tiny_data, tmp_path, *strategy_overrides("vanilla"), epochs=4)
    weights: list[dict[str, Tensor]] = []
    fit = build_fit(config)
    for _ in fit.epochs():
        weights.append({k: v.clone() for k, v in fit.model.state_dict().items()})
    assert fit.best_epoch == best
    assert same_tensors(fit.best, weights[best - 1])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_weights_tested_are_those_validated(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    """The best epoch's scores belong to the weights kept, also where a strategy edits weights."""
    fit = build_fit(settings(tiny_data, tmp_path, *strategy_overrides(strategy), epochs=5))
    rows = list(fit.epochs())
    metrics = [row["val"]["fused"]["metric"] for row in rows]
    if strategy != "mses":
        assert fit.best_epoch == metrics.index(max(metrics)) + 1
    assert fit.best_metric >= max(metrics)
    fit.load_best()
    assert score(fit.task, fit.ctx.observe("val").logits, fit.val.labels) == fit.best_scores
    if strategy != "mses":  # whose restored composite is scored after the row was made
        assert fit.best_scores == rows[fit.best_epoch - 1]["val"]
