"""Strategies that learn from unimodal runs: where these come from, and that they are made once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import lasting, settings

from miles_repro.config import Config
from miles_repro.errors import UserError
from miles_repro.records import WEIGHTS, read_summary
from miles_repro.run import run, teacher


class Trained:
    """Which runs trained an epoch."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __call__(self, config: Config, row: dict[str, Any]) -> None:
        self.names.add(config.strategy["name"])


def test_teachers_are_trained_once_for_all_strategies(tiny_data: Path, tmp_path: Path) -> None:
    first, second = Trained(), Trained()
    for seen, overrides in (
        (first, ("strategy=umt",)),
        (second, ("strategy=umt", "fusion=film", "strategy.weight=2.0")),
    ):
        config = settings(tiny_data, tmp_path, *overrides)
        assert run(config, "test", seen).status == "done"
        assert {c.fusion["name"] for c in config.teachers.values()} == {"concat"}
    assert first.names == {"umt", "unimodal_image", "unimodal_audio"}
    assert second.names == {"umt"}


def test_a_run_without_weights_is_repeated_to_the_same_bits(
    tiny_data: Path, tmp_path: Path
) -> None:
    alone = settings(tiny_data, tmp_path, "strategy=unimodal", "strategy.modality=audio")
    before = run(alone, "test").summary
    assert not (alone.run_dir / WEIGHTS).exists()
    student = settings(tiny_data, tmp_path, "strategy=umt")
    config = student.teachers["audio"]
    assert config.run_dir == alone.run_dir
    seen = Trained()
    found = teacher(config, student, "test", seen)
    assert seen.names == {"unimodal_audio"}
    assert before is not None
    after = read_summary(alone.run_dir)
    assert after is not None
    same = [{k: v for k, v in lasting(s).items() if k != "keep"} for s in (before, after)]
    assert same[0] == same[1]
    assert found.metric == after["val"]["fused"]["metric"]
    assert not any(p.requires_grad for p in found.parameters())
    assert not found.train().training


def test_teachers_are_the_best_trial_of_the_run_s_seed(tiny_data: Path, tmp_path: Path) -> None:
    metrics = {}
    for trial in range(3):
        config = settings(
            tiny_data, tmp_path, "strategy=unimodal", "strategy.modality=audio", trial=trial
        )
        summary = run(config, "test").summary
        assert summary is not None
        metrics[trial] = summary["val"]["fused"]["metric"]
    student = settings(tiny_data, tmp_path, "strategy=umt", seed=4)
    best = student.teachers["audio"].trial
    assert metrics[best] == max(metrics.values())
    assert student.teachers["image"].trial == 0
    assert {c.seed for c in student.teachers.values()} == {4}
    other = settings(tiny_data, tmp_path, "strategy=umt", seed=4, **{"strategy.teachers": 0})
    assert other.teachers["audio"].trial == 0
    assert (other.run_id == student.run_id) == (best == 0)


def test_a_strategy_without_its_teachers_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    config = settings(tiny_data, tmp_path, "strategy=umt", "~strategy.teachers")
    with pytest.raises(UserError, match=r"strategy umt learns from unimodal runs: set strategy\."):
        run(config, "test")
    assert not (tmp_path / "tiny").exists()


def test_teachers_speak_without_gradient_and_stay_as_they_are(
    tiny_data: Path, tmp_path: Path
) -> None:
    student = settings(tiny_data, tmp_path, "strategy=umt")
    one = teacher(student.teachers["image"], student, "test", Trained())
    before = {k: v.clone() for k, v in one.state_dict().items()}
    z, logits = one(torch.randn(4, 1, 6, 6, requires_grad=True))
    assert not z.requires_grad
    assert not logits.requires_grad
    assert all(torch.equal(before[k], v) for k, v in one.state_dict().items())


def test_an_ensemble_is_one_row_under_every_fusion_and_trains_nothing(
    tiny_data: Path, tmp_path: Path
) -> None:
    rows = []
    for fusion in ("concat", "gated"):
        config = settings(tiny_data, tmp_path, "strategy=ume", f"fusion={fusion}")
        summary = run(config, "test").summary
        assert summary is not None
        assert (summary["epochs_run"], summary["best_epoch"]) == (1, 1)
        rows.append({split: summary[split] for split in ("val", "test")})
        for m, one in config.teachers.items():
            alone = read_summary(one.run_dir)
            assert alone is not None
            assert summary["val"][m] == alone["val"]["fused"]
    assert rows[0] == rows[1]
