"""What can move a number is in the run id; nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from support import (
    compose,
    prepare_tiny,
    settings,
)

from miles_repro import composing
from miles_repro import config as configuration
from miles_repro.config import Config

IMAGE_WIDTH = "dataset.modalities.image.encoder.width"
MOVES: list[tuple[str, Any]] = [
    ("seed", 1),
    ("trial", 1),
    ("epochs", 9),
    ("batch_size", 9),
    ("optimizer.lr", 0.03),
    ("optimizer.betas", [0.8, 0.99]),
    ("optimizer.weight_decay", 0.5),
    ("optimizer.clip_norm", 1.0),
    ("optimizer.schedule._target_", "miles_repro.recipe.Cosine"),
    ("optimizer.name", "sgd"),
    ("precision.amp", "bf16"),
    ("precision.channels_last", False),
    ("precision.compile", True),
    ("budget.data_fraction", 0.5),
    ("strategy.tau", 0.11),
    ("strategy.mu", 0.9),
    ("strategy.reset_other", False),
    ("strategy.heads_follow", False),
    ("strategy.source", "train"),
    ("fusion.width", 3),
    ("dataset.scheme", "other"),
    (IMAGE_WIDTH, 3),
    ("dataset.modalities.audio.augment", {"_target_": "somewhere.Else"}),
]
STAYS: list[tuple[str, Any]] = [
    ("runtime.runs_dir", "elsewhere"),
    ("runtime.device", "cuda"),
    ("runtime.threads", 7),
    ("runtime.resident_mb", 0),
    ("runtime.eval_batch_size", 3),
    ("tracker.project", "other"),
    ("budget.trials", 99),
    ("budget.seeds", 99),
    ("budget.encoders", "unused"),
    ("dataset.preparer", "somewhere.else"),
    ("keep", ["weights"]),
    ("rerun", True),
]


@pytest.fixture(scope="module")
def plain(tiny_data: Path) -> Config:
    return settings(tiny_data, Path("runs"), "fusion=gated")


@pytest.mark.parametrize("key, value", MOVES)
def test_run_id_follows_what_moves_a_number(
    key: str, value: Any, plain: Config, tiny_data: Path
) -> None:
    assert settings(tiny_data, Path("runs"), "fusion=gated", **{key: value}).run_id != plain.run_id


@pytest.mark.parametrize("key, value", STAYS)
def test_run_id_ignores_what_does_not(key: str, value: Any, plain: Config, tiny_data: Path) -> None:
    config = settings(tiny_data, Path("runs"), "fusion=gated", **{key: value})
    assert config.run_id == plain.run_id
    assert config.identity() == plain.identity()


def test_run_id_follows_the_data_not_its_place(tmp_path: Path, plain: Config) -> None:
    moved = settings(prepare_tiny(tmp_path / "same"), Path("runs"), "fusion=gated")
    assert moved.run_id == plain.run_id
    other = settings(prepare_tiny(tmp_path / "other", seed=1), Path("runs"), "fusion=gated")
    assert other.data_fingerprint != plain.data_fingerprint
    assert other.run_id != plain.run_id


def test_run_id_follows_the_order_of_the_modalities(plain: Config, tiny_data: Path) -> None:
    composed = compose("dataset=tiny", "optimizer.lr=0.02", "fusion=gated")
    modalities = OmegaConf.to_container(composed["dataset"]["modalities"])
    composed["dataset"]["modalities"] = dict(reversed(modalities.items()))  # type: ignore[union-attr]
    OmegaConf.update(composed, "runtime.data_dir", str(tiny_data))
    swapped = composing.load(composed)
    assert list(swapped.dataset.modalities) == ["audio", "image"]
    assert swapped.run_id != plain.run_id


def test_run_id_follows_the_version_of_the_numbers(
    plain: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain.run_id
    monkeypatch.setattr(configuration, "NUMBERS_VERSION", configuration.NUMBERS_VERSION + 1)
    assert plain.run_id != before


def test_a_value_fixed_by_hand_is_told_apart(tiny_data: Path, tmp_path: Path) -> None:
    """Told by its value, not by its spelling: the default set by hand is the default."""
    plain = settings(tiny_data, tmp_path, "strategy=miles")
    assert plain.pinned == []
    same = settings(tiny_data, tmp_path, "strategy=miles", "strategy.tau=0.2")
    assert (same.pinned, same.run_id) == ([], plain.run_id)
    whole = settings(tiny_data, tmp_path, "strategy=miles", "strategy.mu=1")
    assert whole.run_id == settings(tiny_data, tmp_path, "strategy=miles", "strategy.mu=1.0").run_id
    for spelling in ("strategy.tau=0.1", "strategy={tau:0.1}", "++strategy.tau=0.1"):
        fixed = settings(tiny_data, tmp_path, "strategy=miles", spelling)
        assert fixed.pinned == ["strategy.tau"], spelling
        assert fixed.run_id != plain.run_id
    third = settings(tiny_data, tmp_path, "strategy=miles", trial=3)
    drawn = third.strategy["tau"]
    again = settings(tiny_data, tmp_path, "strategy=miles", f"strategy.tau={drawn}", trial=3)
    assert (again.pinned, again.run_id) == ([], third.run_id)
    default = settings(tiny_data, tmp_path, "strategy=miles", "strategy.tau=0.2", trial=3)
    assert default.strategy["tau"] == 0.2
    assert default.pinned == (["strategy.tau"] if drawn != 0.2 else [])


def test_run_id_is_short_plain_and_in_the_folder(plain: Config) -> None:
    assert len(plain.run_id) == 12
    assert set(plain.run_id) <= set("0123456789abcdef")
    assert plain.run_dir == Path("runs/tiny/gated/miles") / plain.run_id
