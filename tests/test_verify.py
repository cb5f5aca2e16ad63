"""Prepared folders: damage is named, statistics are exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from writer_kit import CARD, make

from miles_repro.data import statistics
from miles_repro.data.manifest import file_table, fingerprint, read_manifest, verify
from miles_repro.data.writer import Card, Preparation
from miles_repro.errors import UserError


def resign(out: Path) -> None:
    """Make hashes fit again after an array was changed, so that deeper checks are reached."""
    manifest = read_manifest(out)
    manifest["files"] = file_table(out, list(manifest["files"]))
    manifest["fingerprint"] = fingerprint(manifest["version"], manifest["files"])
    (out / "manifest.json").write_text(json.dumps(manifest))


def break_byte(out: Path) -> None:
    content = bytearray((out / "image.npy").read_bytes())
    content[-1] ^= 1
    (out / "image.npy").write_bytes(content)


def break_rows(out: Path) -> None:
    np.save(out / "audio.npy", np.load(out / "audio.npy")[:-1])
    resign(out)


def break_labels(out: Path) -> None:
    np.save(out / "labels.npy", np.load(out / "labels.npy") + 1)
    resign(out)


def break_split(out: Path, change: Any) -> None:
    with np.load(out / "splits.npz") as splits:
        parts = {name: splits[name].copy() for name in splits.files}
    change(parts)
    np.savez(out / "splits.npz", **parts)
    resign(out)


@pytest.mark.parametrize(
    "damage,complaint",
    [
        (lambda out: (out / "manifest.json").unlink(), "no manifest.json"),
        (lambda out: (out / "manifest.json").write_text("{"), "cannot be read"),
        (lambda out: (out / "manifest.json").write_text('{"schema": 9}'), "schema 1"),
        (lambda out: (out / "audio.npy").unlink(), "audio.npy is missing"),
        (lambda out: (out / "audio.npy").write_bytes(b"x"), "audio.npy has 1 bytes"),
        (break_byte, "image.npy has another sha256"),
        (break_rows, "audio.npy holds float32"),
        (break_labels, "labels.npy holds labels outside"),
        (
            lambda out: break_split(out, lambda p: p["random.val"].__setitem__(0, 999)),
            "a row that does not exist",
        ),
        (
            lambda out: break_split(
                out, lambda p: p["random.val"].__setitem__(0, p["random.test"][0])
            ),
            "uses a row twice",
        ),
        (
            lambda out: break_split(out, lambda p: p.update({"random.val": p["random.val"][1:]})),
            "'val': 4",
        ),
    ],
)
def test_verify_names_what_is_damaged(tmp_path: Path, damage: Any, complaint: str) -> None:
    make(tmp_path / "toy", tmp_path / "raw")
    damage(tmp_path / "toy")
    with pytest.raises(UserError, match=complaint):
        verify(tmp_path / "toy")


def test_verify_checks_the_fingerprint(tmp_path: Path) -> None:
    manifest = make(tmp_path / "toy", tmp_path / "raw")
    manifest["version"] = 2
    (tmp_path / "toy" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="fingerprint"):
        verify(tmp_path / "toy")


def test_multilabel_counts_labels(tmp_path: Path) -> None:
    card = Card("toy", 1, "multilabel", ("a", "b", "c"), "", "")
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], np.uint8)
    with Preparation(tmp_path / "toy", card, 1) as prep:
        prep.write("x", np.zeros((3, 1), np.float32))
        prep.write("labels", labels)
        prep.split("s", train=np.array([0, 1]), val=np.array([2]), test=np.array([], int))
        manifest = prep.finish()
    assert manifest["schemes"]["s"]["per_class"] == {
        "train": [2, 1, 0],
        "val": [0, 1, 0],
        "test": [0, 0, 0],
    }
    verify(tmp_path / "toy")


def test_other_data_than_the_papers_are_marked_with_the_reason(tmp_path: Path) -> None:
    with Preparation(tmp_path / "toy", CARD, 1) as prep:
        prep.write("labels", np.zeros(3, np.int64))
        prep.stand_in("half of the rows")
        report = prep.finish()["report"]
    assert report == {"skipped": [], "notes": ["half of the rows"], "stand_in": True}


def test_rows_and_parts_must_fit(tmp_path: Path) -> None:
    with Preparation(tmp_path / "toy", CARD, 1) as prep:
        prep.write("x", np.zeros((3, 1), np.float32))
        prep.write("labels", np.zeros(4, np.int64))
        with pytest.raises(ValueError, match="train"):
            prep.split("s", train=np.arange(4))
        with pytest.raises(ValueError, match="x has 3 rows, labels have 4"):
            prep.finish()


def test_statistics_are_numpys_in_any_number_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    array = random.normal(1e4, 1, (50, 3, 4, 5)).astype(np.float32)
    array[:, 2] = 7
    rows = random.permutation(50)[:33]
    monkeypatch.setattr(statistics, "BLOCK_BYTES", 8 * 60 * 5)
    mean, std = statistics.mean_and_std(array, rows, (1, 2))
    chosen = array[rows].astype(np.float64)
    np.testing.assert_allclose(mean[:, 0, 0], chosen.mean(axis=(0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std[:2, 0, 0], chosen[:, :2].std(axis=(0, 2, 3)), rtol=1e-6)
    assert std[2] == 1  # a channel that never changes divides by 1
    assert statistics.mean_and_std(array, rows, ())[0].shape == (3, 4, 5)
    with pytest.raises(ValueError, match="no training rows"):
        statistics.mean_and_std(array, rows[:0], ())
