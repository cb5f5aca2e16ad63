"""MILES: what its switches do to a training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import LR, build_fit, saved, settings

from miles_repro import loop
from miles_repro.errors import UserError
from miles_repro.run import run

# --- through training -------------------------------------------------------------------------

TRACE = [  # fused, image, audio on validation after epochs 1 to 7; tau 0.2
    (0.30, 0.60, 0.40),  # both u negative
    (0.50, 0.60, 0.30),  # image
    (0.60, 0.30, 0.60),  # audio
    (0.60, 0.30, 0.55),  # audio again
    (0.60, 0.56, 0.30),  # image
    (0.00, 0.40, 0.10),  # undefined
    (0.70, 0.50, 0.55),  # below tau
]


FACTORS = {  # image, audio in epochs 1 to 8
    "reset": [(1, 1), (1, 1), (0.5, 1), (1, 0.5), (1, 0.5), (0.5, 1), (1, 1), (1, 1)],
    "literal": [(1, 1), (1, 1), (0.5, 1), (0.5, 0.5), (0.5, 0.5), (0.5, 0.5), (1, 1), (1, 1)],
}


def scripted(trace: list[tuple[float, float, float]], split: str) -> Any:
    """Stands for ``loop.score``, called for the training and then the validation split."""
    other = (0.5, 0.5, 0.5)

    def metrics() -> Iterator[tuple[float, float, float]]:
        for values in [*trace, other]:
            yield from (values, other) if split == "train" else (other, values)

    found = metrics()

    def score(task: Any, logits: Any, labels: Any) -> dict[str, dict[str, float]]:
        names = ("fused", "image", "audio")
        return {k: {"loss": 0.0, "metric": v} for k, v in zip(names, next(found), strict=True)}

    return score


@pytest.mark.parametrize("split", ["val", "train"])
@pytest.mark.parametrize("heads_follow", [True, False])
@pytest.mark.parametrize("reading", ["reset", "literal"])
def test_rates_of_a_training(
    reading: str,
    heads_follow: bool,
    split: str,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "score", scripted(TRACE, split))
    config = settings(
        tiny_data,
        tmp_path,
        "strategy=miles",
        **{
            "epochs": len(TRACE) + 1,
            "strategy.reset_other": reading == "reset",
            "strategy.heads_follow": heads_follow,
            "strategy.source": split,
        },
    )
    fit = build_fit(config)
    epochs = fit.epochs()
    rows = [next(epochs) for _ in range(3)]
    state = saved(fit.state_dict())  # the literal reading must remember who is slow
    fit = build_fit(config)
    fit.load_state_dict(state)
    rows += list(fit.epochs())
    follow = [f if heads_follow else (1, 1) for f in FACTORS[reading]]
    for row, (image, audio), (head_image, head_audio) in zip(
        rows, FACTORS[reading], follow, strict=True
    ):
        assert row["lr"] == {
            "encoder.image": LR * image,
            "encoder.audio": LR * audio,
            "head.image": LR * head_image,
            "head.audio": LR * head_audio,
            "fusion": LR,
        }


def test_a_schedule_and_miles_multiply(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "score", scripted(TRACE, "val"))
    values = {
        "optimizer.schedule": {
            "name": "step",
            "_target_": "miles_repro.recipe.Step",
            "every": 3,
            "gamma": 0.1,
        }
    }
    config = settings(tiny_data, tmp_path, "strategy=miles", **values, epochs=8)
    for row, (image, audio) in zip(build_fit(config).epochs(), FACTORS["reset"], strict=True):
        base = LR * 0.1 ** ((row["epoch"] - 1) // 3)
        assert row["lr"]["fusion"] == pytest.approx(base, rel=1e-12)
        assert row["lr"]["encoder.image"] == pytest.approx(base * image, rel=1e-12)
        assert row["lr"]["encoder.audio"] == pytest.approx(base * audio, rel=1e-12)


def test_utilization_is_recorded(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "score", scripted(TRACE, "val"))
    config = settings(tiny_data, tmp_path, "strategy=miles", epochs=7)
    rows = list(build_fit(config).epochs())
    for row, (fused, image, audio) in zip(rows, TRACE, strict=True):
        if fused == 0:
            assert all(math.isnan(v) for v in row["utilization"].values())
            continue
        assert row["utilization"] == pytest.approx(
            {
                "image": (fused - audio) / fused,
                "audio": (fused - image) / fused,
                "delta": abs(image - audio) / fused,
            }
        )


def test_three_modalities_slow_one_at_most(tiny_data: Path, tmp_path: Path) -> None:
    config = settings(
        tiny_data, tmp_path, "strategy=miles", "strategy.tau=0", dataset="tiny_three", epochs=6
    )
    acted = set()
    for row in build_fit(config).epochs():
        slowed = {g for g, lr in row["lr"].items() if lr != LR}
        assert len({g.split(".")[1] for g in slowed}) <= 1
        acted |= slowed
    assert acted


@pytest.mark.parametrize(
    "value, words",
    [
        ("strategy.tau=-0.1", ("tau=-0.1", "at least 0")),
        ("strategy.mu=1.5", ("mu=1.5", "at most 1")),
        ("strategy.mu=0", ("mu=0", "above 0")),
        ("strategy.source=test", ("source='test'", "val, train")),
        ("strategy.tau=high", ("tau='high'", "a number")),
    ],
)
def test_wrong_values_are_one_clear_line(
    value: str, words: tuple[str, ...], tiny_data: Path, tmp_path: Path
) -> None:
    config = settings(tiny_data, tmp_path / "runs", "strategy=miles", value)
    with pytest.raises(UserError) as error:
        run(config, "test")
    assert all(w in str(error.value) for w in ("miles", *words)), error.value
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()
