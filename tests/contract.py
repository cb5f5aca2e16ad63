"""What every strategy keeps to: the checks of the contract, for a strategy from anywhere."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import Row
from support import (
    build_fit,
    compose,
    lasting,
    parameters,
    rows_without_time,
    same_tensors,
    settings,
)

from miles_repro import run as running
from miles_repro.config import Config, build
from miles_repro.errors import UserError
from miles_repro.loop import Fit
from miles_repro.records import LAST
from miles_repro.run import run
from miles_repro.strategy import Needs


def needs(overrides: Sequence[str]) -> Needs:
    """What the strategy of these overrides says of itself."""
    found = build(compose(*overrides)["strategy"]).needs
    assert isinstance(found, Needs)
    return found


class Interrupted(Exception):
    """Stands for a kill, a time limit, a full disk."""


def interrupt_after(run_id: str, epoch: int) -> Callable[[Config, dict[str, Any]], None]:
    def report(config: Config, row: dict[str, Any]) -> None:
        if config.run_id == run_id and row["epoch"] == epoch:  # its teachers are left alone
            raise Interrupted

    return report


def trained(config: Config) -> tuple[list[dict[str, Any]], Fit]:
    fit = build_fit(config)
    return list(fit.epochs()), fit


def changed(a: Fit, b: Fit) -> set[str]:
    """Parts whose parameters or buffers differ."""
    return {p for p in a.model.parts() if not same_tensors(parameters(a, [p]), parameters(b, [p]))}


def check_resumes(
    overrides: Sequence[str],
    row: Row,
    tiny_data: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Trains, and after an interruption goes on to the same bits."""
    monkeypatch.setattr(running, "SAVE_EVERY_S", 0.0)
    whole = settings(tiny_data, folder / "whole", *overrides)
    cut = settings(tiny_data, folder / "cut", *overrides)
    assert whole.run_id == cut.run_id
    expected = run(whole, "test").summary
    assert expected is not None
    last = 1 + zlib.crc32(" ".join(overrides).encode()) % min(2, expected["epochs_run"])
    with pytest.raises(Interrupted):
        run(cut, "test", interrupt_after(cut.run_id, last))
    assert (cut.run_dir / LAST).exists()
    found = run(cut, "test").summary
    assert found is not None
    rows = rows_without_time(whole.run_dir)
    assert rows == rows_without_time(cut.run_dir)
    assert lasting(dict(expected)) == lasting(dict(found))
    assert not (cut.run_dir / LAST).exists()
    if row.learns:
        losses = [row["train"]["fused"]["loss"] for row in rows]
        assert min(losses[1:]) < losses[0]


def check_data_set(
    dataset: str, overrides: Sequence[str], row: Row, tiny_data: Path, folder: Path
) -> None:
    """More modalities, many labels: trains, or is refused with the reason, as its needs say."""
    config = settings(tiny_data, folder, *overrides, dataset=dataset, **row.values.get(dataset, {}))
    limits = needs(overrides)
    most, tasks = limits.max_modalities, limits.tasks
    if dataset == "tiny_three" and most is not None and most < 3:
        with pytest.raises(UserError, match="modalities"):
            running.check(config)
        return
    if dataset == "tiny_labels" and tasks is not None and "multilabel" not in tasks:
        with pytest.raises(UserError, match="not defined for multilabel"):
            running.check(config)
        return
    rows, fit = trained(config)
    used = ["image", "audio", "text"] if dataset == "tiny_three" else ["image", "audio"]
    used = build(config.strategy).restrict(used)
    assert fit.ctx.modalities == used
    for one in rows:
        assert list(one["val"]) == ["fused", *used]
        assert all(math.isfinite(s["loss"]) for s in one["val"].values())
        if dataset == "tiny_labels":
            averages = {"f1_micro", "f1_macro", "f1_weighted", "f1_samples"}
            assert averages < one["val"]["fused"].keys()
            assert one["val"]["fused"]["metric"] == one["val"]["fused"]["f1_micro"]
    if row.learns:
        assert rows[-1]["train"]["fused"]["loss"] < rows[0]["train"]["fused"]["loss"]


def check_rows_stand_alone(overrides: Sequence[str], tiny_data: Path, folder: Path) -> None:
    """A row's prediction does not depend on its batch."""
    _, fit = trained(settings(tiny_data, folder, *overrides))
    whole = fit.ctx.observe("val").logits
    for row in (0, 5):
        alone = fit.ctx.observe("val", torch.tensor([row])).logits
        for head, logits in alone.items():
            torch.testing.assert_close(logits[0], whole[head][row], atol=1e-5, rtol=1e-4)


def check_touches(
    overrides: Sequence[str], row: Row, like: Sequence[str], tiny_data: Path, folder: Path
) -> None:
    """The first step moves the parts that the row names away from where ``like`` moves them."""
    assert row.touches is not None
    step = {"batch_size": 26, "epochs": 1}

    def one_step(overrides: Sequence[str]) -> Fit:
        return trained(settings(tiny_data, folder, "optimizer=sgd", *overrides, **step))[1]

    start = build_fit(settings(tiny_data, folder, *like, **step))
    expected, found = one_step(like), one_step(overrides)
    assert changed(expected, start) == set(start.model.parts())
    assert changed(found, expected) in row.touches, changed(found, expected)


def check_neutral(
    overrides: Sequence[str],
    values: dict[str, Any],
    reference: Sequence[str],
    tiny_data: Path,
    folder: Path,
) -> None:
    """With these values the strategy is the reference, bit for bit."""

    def trajectory(overrides: Sequence[str], **values: Any) -> tuple[list[dict[str, Any]], Fit]:
        return trained(settings(tiny_data, folder, *overrides, **values))

    (rows, fit), (expected, plain) = trajectory(overrides, **values), trajectory(reference)
    shared = list(plain.model.parts())
    assert same_tensors(parameters(fit, shared), parameters(plain, shared))
    alike = fit.model.heads.keys() == plain.model.heads.keys() and (
        type(fit.strategy).unimodal is type(plain.strategy).unimodal
    )
    heads = list(expected[0]["val"]) if alike else []
    for mine, theirs in zip(rows, expected, strict=True):
        for head in heads or ["fused"]:
            assert mine["train"][head] == theirs["train"][head]
            assert mine["val"][head] == theirs["val"][head]
        assert {g: mine["lr"][g] for g in theirs["lr"]} == theirs["lr"]
