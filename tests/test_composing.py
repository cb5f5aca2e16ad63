"""Combinations that are not defined are refused, with the reason, before a run starts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from support import settings

from miles_repro.errors import UserError
from miles_repro.run import run
from miles_repro.strategy import Needs, Strategy


class LinearOnly(Strategy):
    """A strategy defined for linear fusions of one label a sample."""

    needs: ClassVar[Needs] = Needs(fusions=frozenset({"concat", "sum"}), tasks=frozenset({"x"}))


@pytest.mark.parametrize(
    "dataset, overrides, words",
    [
        ("tiny_three", ("fusion=film",), ("fusion film", "2 modalities", "3 (image, audio, text)")),
        ("tiny_three", ("fusion=gated",), ("fusion gated", "tiny_three")),
        (
            "tiny",
            ("fusion=film", "strategy._target_=test_composing.LinearOnly"),
            ("strategy linear", "not defined for fusion=film", "concat, sum"),
        ),
        (
            "tiny",
            ("fusion=sum", "strategy._target_=test_composing.LinearOnly"),
            ("strategy linear", "not defined for multiclass data sets such as tiny"),
        ),
        (
            "tiny",
            ("strategy=unimodal", "strategy.modality=smell"),
            ("strategy unimodal_smell", "'smell' is not one of ['image', 'audio']"),
        ),
    ],
)
def test_undefined_combinations_are_refused_with_the_reason(
    dataset: str,
    overrides: tuple[str, ...],
    words: tuple[str, ...],
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    if any("LinearOnly" in o for o in overrides):
        overrides = ("strategy=vanilla", "strategy.name=linear", *overrides)
    config = settings(tiny_data, runs, *overrides, dataset=dataset)
    with pytest.raises(UserError) as refusal:
        run(config, "test")
    text = str(refusal.value)
    assert all(word in text for word in words), text
    assert "\n" not in text
    assert not runs.exists()  # before anything was begun
