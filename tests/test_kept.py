"""A finished run read back: scores by class from kept predictions, or from kept weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rows import rows
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from support import settings, strategy_overrides

from miles_repro import kept, metrics
from miles_repro.cli import evaluate
from miles_repro.records import PREDICTIONS, WEIGHTS, RunRecord
from miles_repro.run import run


def trained(
    tiny_data: Path,
    runs: Path,
    strategy: str,
    *keep: str,
    fusion: str = "concat",
    dataset: str = "tiny",
) -> tuple[Path, dict[str, Any]]:
    own = dict(rows()[strategy].values.get(dataset, {}))
    config = settings(
        tiny_data,
        runs,
        *strategy_overrides(strategy, fusion),
        dataset=dataset,
        keep=list(keep),
        **own,
    )
    outcome = run(config, "train.py strategy=x")
    assert outcome.summary is not None
    return config.run_dir, dict(outcome.summary)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
    return evaluate.main()


@given(st.integers(1, 40), st.integers(2, 6), st.integers(0, 99))
def test_scores_by_class_are_those_of_scikit_learn(n: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, guess = rng.integers(0, classes, (2, n))
    every = np.arange(classes)
    found = metrics.by_class(guess[:, None] == every, y[:, None] == every)
    expected = precision_recall_fscore_support(y, guess, labels=every, zero_division=0)
    for mine, theirs in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(mine, theirs)
    logits = np.eye(classes)[guess]
    np.testing.assert_array_equal(
        evaluate._confusion(logits, y), confusion_matrix(y, guess, labels=every)
    )


@pytest.mark.parametrize(
    "strategy, fusion",
    [
        *(("vanilla", "film"), ("miles", "sum"), ("mla", "late"), ("amco", "concat")),
        *(("umt", "concat"), ("agm", "concat")),
    ],
)
def test_kept_weights_predict_what_was_predicted(
    strategy: str, fusion: str, tiny_data: Path, tmp_path: Path
) -> None:
    """Own modules, own prediction rules, a fusion of its own, teachers: bit for bit."""
    folder, summary = trained(
        tiny_data, tmp_path, strategy, "weights", "predictions", fusion=fusion
    )
    config = kept.config_of(folder, summary, tiny_data)  # type: ignore[arg-type]
    assert config.run_dir == folder
    read, source = kept.predictions(folder, config, summary)  # type: ignore[arg-type]
    assert source == "kept predictions"
    (folder / PREDICTIONS).unlink()
    again, source = kept.predictions(folder, config, summary)  # type: ignore[arg-type]
    assert "again" in source
    assert read.keys() == again.keys() == {"fused", "image", "audio", "labels"}
    for head in read:
        np.testing.assert_array_equal(read[head], again[head])
    right = (read["fused"].argmax(1) == read["labels"]).mean()
    assert right == pytest.approx(summary["test"]["fused"]["metric"])


@pytest.mark.parametrize("device", ["cpu", "NVIDIA H200"])
def test_a_recorded_score_that_differs_is_refused(
    device: str, tiny_data: Path, tmp_path: Path
) -> None:
    folder, summary = trained(tiny_data, tmp_path, "vanilla", "weights")
    summary["environment"]["device"] = device
    config = kept.config_of(folder, summary, tiny_data)  # type: ignore[arg-type]
    assert kept.predictions(folder, config, summary)  # type: ignore[arg-type]
    summary["test"]["image"]["metric"] += 0.01
    with pytest.raises(kept.UserError, match=r"scores on record \(image\)"):
        kept.predictions(folder, config, summary)  # type: ignore[arg-type]


def test_a_configuration_that_cannot_be_read_is_one_line(tiny_data: Path, tmp_path: Path) -> None:
    folder, summary = trained(tiny_data, tmp_path, "vanilla")
    dataset, optimizer = summary["config"]["dataset"], summary["config"]["optimizer"]
    damage: list[dict[str, Any]] = [
        {"optimizer": {**optimizer, "lr": None}},
        {"optimizer": {**optimizer, "lr": "\x1b[31m"}},
        {"dataset": {}},
        {"dataset": {**dataset, "order": 5}},
        {"dataset": {**dataset, "modalities": None}},
        {"teachers": 5},
    ]
    for changes in damage:
        odd: Any = {**summary, "config": {**summary["config"], **changes}}
        with pytest.raises(kept.UserError, match="cannot be restored") as error:
            kept.config_of(folder, odd, tiny_data)
        assert str(error.value).isprintable()


def test_scores_and_picture(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder, summary = trained(tiny_data, tmp_path / "runs", "miles", "predictions")
    out = tmp_path / "out"
    options = ("--runs-dir", tmp_path / "runs", "--data-dir", tiny_data, "--out", out)
    assert call(monkeypatch, folder.name, *options) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "12 test samples" in printed.out
    (place,) = out.iterdir()
    assert {path.name for path in place.iterdir()} == {
        *("scores.csv", "confusion.png", "confusion.svg")
    }
    table = pd.read_csv(place / "scores.csv").set_index(["head", "class"])
    assert list(table.index.unique("head")) == ["fused", "image", "audio"]
    for head in ("fused", "image", "audio"):
        rows = table.loc[head]
        accuracy = (rows["recall"] * rows["support"]).sum() / rows["support"].sum()
        assert accuracy == pytest.approx(summary["test"][head]["metric"])


def test_labels_have_a_table_and_no_matrix(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    folder, summary = trained(tiny_data, runs, "vanilla", "predictions", dataset="tiny_labels")
    assert call(monkeypatch, folder, "--data-dir", tiny_data, "--out", out) == 0
    (file,) = out.glob("*/*")
    table = pd.read_csv(file)
    fused = table[table["head"] == "fused"]
    assert list(fused["class"]) == ["a", "b", "c"]
    weighted = (fused["f1"] * fused["support"]).sum() / fused["support"].sum()
    assert weighted == pytest.approx(summary["test"]["fused"]["f1_weighted"])


def test_numbers_have_errors_and_a_scatter(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from miles_repro.plots.predictions import scatter

    y = np.array([0.0, 1.0, 2.0], np.float32)
    logits = np.array([[0.5], [1.0], [1.0]], np.float32)
    config: Any = SimpleNamespace()
    table = evaluate.SCORES["regression"](logits, y, [], config)
    assert table.loc["all", "mae"] == pytest.approx(0.5)
    figure = scatter({"fused": logits[:, 0]}, y, "title")
    (points,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    np.testing.assert_array_equal(points.get_xydata(), np.stack([y, logits[:, 0]], 1))


def test_nothing_kept_is_one_line(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder, _ = trained(tiny_data, tmp_path, "vanilla")
    out = tmp_path / "out"
    assert call(monkeypatch, folder, "--data-dir", tiny_data, "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "keeps neither weights nor predictions" in line
    assert "keep=[predictions] rerun=true" in line
    assert not out.exists()
    assert call(monkeypatch, "0123456789ab", "--runs-dir", tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no finished run" in line


def test_an_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def find(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kept, "find", find)
    assert call(monkeypatch, "0123456789ab") == 130
    assert capsys.readouterr().err == "interrupted: run the same command again\n"


def test_changed_code_is_a_warning(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder, _ = trained(tiny_data, tmp_path, "vanilla", "predictions")
    text = (folder / "summary.json").read_text()
    now = kept.read_summary(folder)
    assert now is not None
    digest = now["code"]["miles_repro.loop"]
    (folder / "summary.json").write_text(text.replace(digest, 64 * "0"))
    arguments = (folder, "--data-dir", tiny_data, "--out", tmp_path / "out")
    assert call(monkeypatch, *arguments) == 0
    assert "changed since this run was made: miles_repro.loop" in capsys.readouterr().err


def test_modules_that_were_made_during_training_are_named(tiny_data: Path, tmp_path: Path) -> None:
    folder, summary = trained(tiny_data, tmp_path, "vanilla", "weights")
    record = RunRecord(folder)
    record.save_weights({**record.load_weights(), "own.late.weight": torch.zeros(2)})
    config = kept.config_of(folder, summary, tiny_data)  # type: ignore[arg-type]
    with pytest.raises(kept.UserError, match=r"vanilla made during training.*keep=\[predictions\]"):
        kept.predictions(folder, config, summary)  # type: ignore[arg-type]


def test_other_data_and_other_versions_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    from support import prepare_tiny

    folder, summary = trained(tiny_data, tmp_path, "vanilla", "weights")
    config = kept.config_of(folder, summary, prepare_tiny(tmp_path / "other", seed=1))  # type: ignore[arg-type]
    with pytest.raises(kept.UserError, match="is not the data"):
        kept.predictions(folder, config, summary)  # type: ignore[arg-type]
    older = {**summary, "config": {**summary["config"], "numbers_version": 1}, "run_id": "0" * 12}
    with pytest.raises(kept.UserError, match="cannot be restored"):
        kept.config_of(folder, older, tiny_data)  # type: ignore[arg-type]
    assert (folder / WEIGHTS).exists()
