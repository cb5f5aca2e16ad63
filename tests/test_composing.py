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


@pytest.mark.parametrize(
    "override, words",
    [
        ("seed=9223372036854775808", "seed=9223372036854775808: a whole number from 0"),
        ("trial=-1", "trial=-1: a whole number"),
        ("+dataset.lr=3", r"\+dataset.lr=3: no run reads it"),
        ("+dataset.preparation.size=3", r"\+dataset.preparation.size=3: no run reads it"),
    ],
)
def test_what_no_record_holds_and_no_run_reads_is_refused(
    override: str, words: str, tiny_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{words}"):
        settings(tiny_data, tmp_path, override)
