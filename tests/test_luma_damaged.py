"""LUMA: bad files are named, no pickle is opened; the stand-in."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from luma_kit import prepare, raw

from miles_repro.data import luma
from miles_repro.data.command import prepare_dataset
from miles_repro.data.luma_raw import read_tables
from miles_repro.data.manifest import verify
from miles_repro.errors import UserError

__all__ = ["raw"]  # fixtures


def write_pickle(raw: Path, odd: bool = False) -> Path:
    with np.load(raw / "image_data_unprocessed.npz") as data:
        table = pd.DataFrame({"image": list(data["image"]), "label": data["label"]})
    if odd:
        table.at[0, "image"] = np.zeros((32, 32, 4), np.uint8)
        table.at[1, "image"] = np.zeros((32, 32), np.uint8)
    (raw / "image_data_unprocessed.npz").unlink()
    table.to_pickle(raw / "image_data_unprocessed.pickle")
    return raw / "image_data_unprocessed.pickle"


def write_pickle_of_something_else(raw: Path) -> None:
    pd.DataFrame({"x": [1]}).to_pickle(raw / "image_data_unprocessed.pickle")


def rewrite(raw: Path, **arrays: np.ndarray) -> None:
    path = raw / "image_data_unprocessed.npz"
    with np.load(path) as data:
        kept = {name: data[name] for name in data.files}
    np.savez(path, **{name: a for name, a in {**kept, **arrays}.items() if a is not None})


def test_a_pickle_needs_an_explicit_permission(raw: Path, tmp_path: Path) -> None:
    before = prepare(raw, tmp_path / "npz")
    pickle = write_pickle(raw)
    with pytest.raises(UserError, match=r"runs any code inside it.*allow_pickle=true") as refusal:
        prepare(raw, tmp_path / "data")
    assert prepare(raw, tmp_path / "data", allow_pickle="true")["files"] == before["files"]
    # the command that the message recommends makes the file that needs no permission
    command = str(refusal.value).partition('python -c "')[2].partition('"')[0]
    subprocess.run([sys.executable, "-c", command], check=True)
    pickle.unlink()
    assert prepare(raw, tmp_path / "converted")["files"] == before["files"]


def test_a_hostile_pickle_is_not_opened(raw: Path, tmp_path: Path) -> None:
    write_pickle(raw).write_bytes(b"cos\nsystem\n(S'touch " + bytes(tmp_path / "owned") + b"'\ntR.")
    with pytest.raises(UserError, match="allow_pickle=true"):
        prepare(raw, tmp_path / "data")
    assert not (tmp_path / "owned").exists()
    write_pickle_of_something_else(raw)
    with pytest.raises(UserError, match="is not LUMA's table of images"):
        prepare(raw, tmp_path / "data", allow_pickle="true")


def test_pickled_images_with_other_channels_are_left_out_and_reported(
    raw: Path, tmp_path: Path
) -> None:
    write_pickle(raw, odd=True)
    manifest = prepare(raw, tmp_path / "data", allow_pickle="true")
    reasons = [entry["reason"] for entry in manifest["report"]["skipped"]]
    assert reasons == [
        "image of shape (32, 32, 4), expected (32, 32, 3)",
        "image of shape (32, 32), expected (32, 32, 3)",
    ]
    assert manifest["report"]["skipped"][0]["file"].endswith("image_data_unprocessed.pickle row 0")


@pytest.mark.parametrize(
    "damage,complaint",
    [
        (
            lambda raw: (raw / "audio_data_unprocessed.csv").unlink(),
            "is not a LUMA folder: expected",
        ),
        (
            lambda raw: (raw / "audio_data_unprocessed.csv").write_text("path,word\na.wav,man\n"),
            "needs the columns path and label",
        ),
        (
            lambda raw: (raw / "audio_data_unprocessed.csv").write_text("path,label\na.wav,\n"),
            "line 2: path or label is empty",
        ),
        (
            lambda raw: rewrite(raw, image=np.zeros((31, 32, 32, 4), np.uint8)),
            r"images are uint8 \(32, 32, 4\)",
        ),
        (
            lambda raw: rewrite(raw, image=np.zeros((31, 32, 32, 3), np.float32)),
            "images are float32",
        ),
        (lambda raw: rewrite(raw, label=np.array(["man"])), "31 images but 1 labels"),
        (lambda raw: rewrite(raw, label=None), "must hold the arrays image and label"),
        (
            lambda raw: rewrite(raw, label=np.array([None] * 31)),
            "must hold the arrays image and label",
        ),
        (
            lambda raw: (raw / "image_data_unprocessed.npz").write_bytes(b"x"),
            "must hold the arrays image and label",
        ),
    ],
)
def test_bad_tables_are_named(raw: Path, tmp_path: Path, damage: Any, complaint: str) -> None:
    damage(raw)
    with pytest.raises(UserError, match=complaint):
        prepare(raw, tmp_path / "data")
    assert not (tmp_path / "data" / "luma").exists()


def test_no_raw_folder_points_to_the_documentation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raw=<LUMA folder> is missing: see docs/data.md"):
        prepare_dataset("luma", None, tmp_path)


def test_the_class_list_is_lumas_first_22() -> None:
    names = luma.paper_classes()
    assert len(names) == len(set(names)) == 22
    assert (names[0], names[-1]) == ("man", "forest")


def test_the_papers_counts_share_the_classes_equally(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25,000 / 4,000 / 4,000 over 22 classes of 1,500, drawn without touching a file."""
    from miles_repro.data import luma_pairs
    from miles_repro.data.writer import Card, Preparation

    audio, image = read_tables(raw, allow_pickle=False)
    names = luma.paper_classes()
    audio.labels = image.labels = np.repeat(names, 1_500)
    audio.test = image.test = np.zeros(33_000, bool)
    monkeypatch.setattr(luma_pairs, "_readable", lambda prep, paths, waiting, needed: waiting)
    with Preparation(tmp_path / "x", Card("x", 1, "multiclass", (), "", ""), 1) as prep:
        pairs, labels = luma_pairs.draw_pairs(prep, audio, image, names, luma.PAPER, 0, False)
    assert (np.sort(pairs, axis=0) == np.arange(33_000)[:, None]).all()
    assert (pairs // 1_500 == labels[:, None]).all()
    for start, stop in ((0, 25_000), (25_000, 29_000), (29_000, 33_000)):
        shares = np.bincount(labels[start:stop])
        assert shares.max() - shares.min() <= 1
    frozen = "a71ce54c58528617ddcfdd3b0d0330e5d461111ab28af4c6bc417802317eb972"
    assert hashlib.sha256(pairs.tobytes()).hexdigest() == frozen


def test_the_stand_in_keeps_its_test_voices(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "luma_like"
    options = {"train": "440", "val": "88", "test": "132", "reuse": "true", "workers": "1"}
    manifest, _ = prepare_dataset("luma", raw, tmp_path, options)
    verify(tmp_path / "luma")
    assert manifest["modalities"] == {
        "audio": {"shape": [1, 96, 96], "dtype": "float16"},
        "image": {"shape": [3, 96, 96], "dtype": "uint8"},
    }
    assert manifest["schemes"]["given"]["per_class"]["test"] == [6] * 22
    assert manifest["report"]["skipped"] == []
