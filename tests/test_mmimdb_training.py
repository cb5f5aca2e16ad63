"""Training on prepared MM-IMDb."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmimdb_kit import VOCAB, manifest_of, original, prepare, prepared, raw, tokenizer
from support import settings

from miles_repro.errors import UserError
from miles_repro.run import run

__all__ = ["original", "prepared", "raw", "tokenizer"]  # fixtures

# ---- training ---------------------------------------------------------------------------------


def train(data: Path, runs: Path, encoders: str, **values: Any) -> dict[str, Any]:
    budget = ("budget=smoke", "budget.data_fraction=1.0", f"budget.encoders={encoders}")
    values = {"epochs": 2, "batch_size": 4, **values}
    summary = run(settings(data, runs, *budget, dataset="mmimdb", **values), "test").summary
    assert summary is not None
    assert (summary["status"], summary["metric"]) == ("done", "f1_micro")
    assert np.isfinite([part["loss"] for part in summary["test"].values()]).all()
    return summary


@pytest.mark.parametrize("encoders", ["small", "gru"])
def test_training_on_words(prepared: Path, tmp_path: Path, encoders: str) -> None:
    summary = train(prepared.parent, tmp_path, encoders)
    assert set(summary["test"]) == {"fused", "text", "image"}
    assert set(summary["noise"]) == {"image"}  # token ids take no noise


@pytest.mark.parametrize("finetune", [True, False])
def test_training_on_wordpieces(
    original: Path, tokenizer: Path, tmp_path: Path, finetune: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=len(VOCAB), num_attention_heads=2, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    shutil.copy(tokenizer / "vocab.txt", tmp_path / "bert")
    bert = tmp_path / "bert"
    prepare(original, tmp_path / "data" / "mmimdb", tokenizer=str(bert), length=8, size=32)
    paper = "dataset.encoders.paper"
    values = {f"{paper}.text.finetune": finetune, f"{paper}.image.depth": 10}
    values["dataset.bert_folder"] = str(bert)
    train(tmp_path / "data", tmp_path / "runs", "paper", **values)


def test_bert_on_words_is_refused(prepared: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=10, num_attention_heads=2, hidden_size=8)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    # [CLS] is no id a plot of the fixture begins with
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(["[PAD]", *"abcdefgh", "[CLS]"]))
    with pytest.raises(UserError, match="tokenizer="):
        train(
            *(prepared.parent, tmp_path / "runs", "paper"),
            **{"dataset.bert_folder": str(tmp_path / "bert")},
        )


def test_without_a_bert_folder(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no BERT model at"):
        train(prepared.parent, tmp_path, "paper")


# ---- the stand-in -----------------------------------------------------------------------------


@pytest.mark.slow
def test_stand_in_killed_midway_ends_with_the_same_bytes(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "mmimdb_like"
    script = Path(__file__).resolve().parents[1] / "scripts" / "prepare_data.py"
    command = [sys.executable, str(script), "dataset=mmimdb", f"raw={raw}", "partial=true"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, f"out={whole}"], check=True, stderr=subprocess.PIPE)
    process = subprocess.Popen(
        [*command, f"out={killed}"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    log = killed / "mmimdb.partial" / "image.progress"
    while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < 8):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(log.read_text().splitlines()) - 1
    assert 0 < before < 88, "the kill came too early or too late to show anything"
    again = subprocess.run(
        [*command, f"out={killed}"], check=True, stderr=subprocess.PIPE, text=True
    )
    assert "were done before" in again.stderr
    one, other = manifest_of(whole / "mmimdb"), manifest_of(killed / "mmimdb")
    assert one["files"] == other["files"]
    assert one["fingerprint"] == other["fingerprint"]
    counts = one["schemes"]["official"]
    assert [counts[p] for p in ("train", "val", "test")] == [1668, 292, 854]
    assert sum(n > 0 for n in counts["per_class"]["train"]) == 21
