"""One run from configuration to record: the same bits every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from support import (
    REPO,
    TEST_CONF,
    assert_same_record,
    finished,
    lasting,
    prepare_tiny,
    rows_without_time,
    settings,
    strategy_overrides,
)

from miles_repro import records
from miles_repro import run as running
from miles_repro.errors import UserError
from miles_repro.records import CONFIG, LOCK, SUMMARY, read_summary
from miles_repro.run import run


def test_the_same_command_twice_gives_the_same_rows(tiny_data: Path, tmp_path: Path) -> None:
    """In this process and in another one."""
    overrides = ("strategy=ogm_ge", "fusion=film", "strategy.ends=1.0", "optimizer.lr=0.02")
    config = settings(tiny_data, tmp_path / "here", *overrides)
    here = finished(config)
    ours = (f"hydra.searchpath=[file://{TEST_CONF}]", "tracker=none", "dataset=tiny")
    place = (f"runtime.runs_dir={tmp_path / 'there'}", "runtime.device=cpu")
    command = [sys.executable, str(REPO / "train.py"), *ours, *overrides, *place]
    environment = {**os.environ, "MILES_DATA": str(tiny_data)}
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    there = tmp_path / "there" / config.run_dir.relative_to(tmp_path / "here")
    assert rows_without_time(there) == rows_without_time(config.run_dir)
    summary = read_summary(there)
    assert summary is not None
    assert lasting(summary) == lasting(here)
    assert (there / CONFIG).read_bytes() == (config.run_dir / CONFIG).read_bytes()


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_where_the_data_lies_moves_nothing(fusion: str, tiny_data: Path, tmp_path: Path) -> None:
    overrides = strategy_overrides("miles", fusion)
    configs = [
        settings(tiny_data, tmp_path / str(mb), *overrides, **{"runtime.resident_mb": mb})
        for mb in (2048, 0)
    ]
    for config in configs:
        finished(config)
    assert_same_record(*configs)


def test_the_size_of_evaluation_batches_moves_nothing(tiny_data: Path, tmp_path: Path) -> None:
    """Up to rounding of the losses; noise included."""
    summaries = [
        finished(
            settings(
                tiny_data,
                tmp_path / str(size),
                *strategy_overrides("miles"),
                **{"runtime.eval_batch_size": size},
            )
        )
        for size in (512, 5)
    ]

    def flat(value: Any, path: str = "") -> dict[str, float]:
        if isinstance(value, dict):
            return {k: v for key, x in value.items() for k, v in flat(x, f"{path}.{key}").items()}
        return {path: value}

    for part in ("val", "test", "missing", "noise", "utilization"):
        assert flat(summaries[0][part]) == pytest.approx(flat(summaries[1][part]), rel=1e-5)


def test_a_finished_run_is_skipped(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides("vanilla"))
    summary = finished(config)
    before = {p.name: p.read_bytes() for p in config.run_dir.iterdir()}
    monkeypatch.setattr(running, "_train", None)
    outcome = run(config, "again")
    assert outcome.status == "skipped"
    assert outcome.summary == json.loads(json.dumps(summary))
    assert {p.name: p.read_bytes() for p in config.run_dir.iterdir()} == before


def test_a_run_held_by_another_process_is_left_alone(tiny_data: Path, tmp_path: Path) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides("vanilla"))
    config.run_dir.mkdir(parents=True)
    with FileLock(config.run_dir / LOCK):
        assert run(config, "test").status == "busy"
        assert not (config.run_dir / CONFIG).exists()
    assert run(config, "test").status == "done"


SCORE = {"loss", "metric"}


@pytest.mark.parametrize("dataset", ["tiny", "tiny_labels", "tiny_three"])
def test_summary(dataset: str, tiny_data: Path, tmp_path: Path) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides("miles"), dataset=dataset)
    finished(config, "python train.py x=y")
    s = json.loads((config.run_dir / SUMMARY).read_text(), parse_constant=pytest.fail)
    modalities = ["image", "audio", "text"] if dataset == "tiny_three" else ["image", "audio"]
    scores = SCORE
    if dataset == "tiny_labels":
        scores = SCORE | {"f1_micro", "f1_macro", "f1_weighted", "f1_samples"}
    assert s["status"] == "done"
    assert s["run_id"] == config.run_id == config.run_dir.name
    assert (s["dataset"], s["fusion"], s["strategy"]) == (dataset, "concat", "miles")
    assert (s["trial"], s["seed"], s["budget"], s["pinned"]) == (0, 0, "mini", ["strategy.tau"])
    assert s["metric"] == ("f1_micro" if dataset == "tiny_labels" else "accuracy")
    assert (s["modalities"], s["strong"], s["weak"]) == (modalities, "image", "audio")
    assert s["config"] == json.loads(json.dumps(config.identity()))
    assert s["data_fingerprint"] == config.data_fingerprint
    for part in ("val", "test"):
        assert list(s[part]) == ["fused", *modalities]
        assert all(set(v) == scores for v in s[part].values())
        assert all(0 <= v["metric"] <= 1 for v in s[part].values())
        assert set(s["utilization"][part]) == {*modalities, "delta"}
    assert s["gap"] == pytest.approx(s["test"]["image"]["metric"] - s["test"]["audio"]["metric"])
    for m in modalities:
        assert {k: set(v) for k, v in s["missing"][m].items()} == {"zero": scores, "mean": scores}
        assert list(s["noise"][m]) == ["0.5", "1.0", "2.0"]
    assert 1 <= s["best_epoch"] <= s["epochs"] == 3
    rows = records.load_rows(config.run_dir)
    assert s["val"] == rows[s["best_epoch"] - 1]["val"]
    assert s["cost"]["wall_s"] > 0
    assert s["cost"]["train_samples_per_s"] > 0
    assert s["environment"]["torch"] == torch.__version__
    assert s["command"] == "python train.py x=y"
    keys = ["epoch", "train", "val", "utilization", "lr", "strategy", "time"]
    assert [list(row) for row in rows] == [keys] * 3
    groups = [f"{g}.{m}" for g in ("encoder", "head") for m in modalities]
    assert set(rows[0]["lr"]) == {*groups, "fusion"}
    assert json.loads((config.run_dir / CONFIG).read_text()) == s["config"]


def test_summary_of_one_modality(tiny_data: Path, tmp_path: Path) -> None:
    summary = finished(
        settings(tiny_data, tmp_path, "strategy=unimodal", "strategy.modality=audio")
    )
    assert summary["strategy"] == "unimodal_audio"
    assert summary["fusion"] == "concat"
    for part in ("val", "test"):
        assert summary[part]["fused"] == summary[part]["audio"]
        assert set(summary[part]) == {"fused", "audio"}
    assert summary["gap"] is None
    assert summary["missing"] == summary["noise"] == {}


@pytest.mark.parametrize("strategy", ["miles", "gblend"])
def test_a_fraction_of_the_data(strategy: str, tiny_data: Path, tmp_path: Path) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides(strategy), "budget=smoke")
    assert config.epochs == 2
    summary = finished(config)
    assert summary["budget"] == "smoke"
    whole_numbers = [summary["test"]["fused"]["metric"] * 2, summary["val"]["fused"]["metric"] * 3]
    assert all(x == pytest.approx(round(x)) for x in whole_numbers)  # 0.2 of 12 and 14 rows


def test_damaged_data_is_one_line_and_leaves_no_summary(tmp_path: Path) -> None:
    data = prepare_tiny(tmp_path / "data")
    config = settings(data, tmp_path / "runs", *strategy_overrides("vanilla"))
    path = data / "tiny" / "audio.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"audio\.npy does not match its sha256 .* --force"
    ) as error:
        run(config, "test")
    assert "\n" not in str(error.value)
    assert not (config.run_dir / SUMMARY).exists()
    path.unlink()
    with pytest.raises(UserError, match=r"audio\.npy is missing: prepare it again"):
        run(config, "test")
