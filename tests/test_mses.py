"""MSES: when a part stops, and at which state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from properties import script_validation, whole_batch
from support import (
    build_fit,
    parameters,
    same_tensors,
    settings,
)

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
