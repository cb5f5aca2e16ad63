"""S-MNIST from its six arrays: sizes, leaks, and every bad input named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from smnist_kit import load, prepare, raw

from miles_repro.errors import UserError

__all__ = ["raw"]  # fixtures


def change(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda raw: np.save(raw / name, edit(np.load(raw / name)))


def test_paper_and_grouped_take_the_sizes_asked_for(raw: Path, tmp_path: Path) -> None:
    manifest = prepare(raw, tmp_path / "data")
    image, audio, labels, splits = load(tmp_path / "data")
    assert (image.shape[1:], image.dtype) == ((1, 28, 28), np.uint8)
    assert (audio.shape[1:], audio.dtype) == ((1, 39, 13), np.float32)
    recording = audio[:, 0, 0, 0]
    assert (recording % 10 == labels).all()
    for scheme in ("paper", "grouped"):
        assert manifest["schemes"][scheme]["per_class"] == {
            "train": [16] * 10,
            "val": [4] * 10,
            "test": [4] * 10,
        }
        rows = np.concatenate([splits[f"{scheme}.{part}"] for part in ("train", "val")])
        assert (recording[rows] < 1000).all()
        assert (recording[splits[f"{scheme}.test"]] >= 1000).all()
        assert (np.diff(labels[splits[f"{scheme}.train"]]) < 0).mean() > 0.3  # shuffled
    heard = {part: set(recording[splits[f"grouped.{part}"]]) for part in ("train", "val")}
    assert not heard["train"] & heard["val"]
    leak = np.isin(recording[splits["paper.val"]], recording[splits["paper.train"]]).sum()
    assert leak > 10
    assert manifest["report"]["stand_in"]
    notes = manifest["report"]["notes"]
    assert "the raw files hold 300 + 100 rows, not the original's 60,000 + 10,000" in notes[0]
    assert any(
        f"scheme paper: audio that also occurs in training: {leak} of 40" in n for n in notes
    )
    assert any("scheme grouped: audio that also occurs in training: 0 of 40" in n for n in notes)


def test_rows_stay_aligned(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "data")
    image, audio, labels, splits = load(tmp_path / "data")
    row = image[:, 0, 0, 0].astype(int) * 250 + image[:, 0, 0, 1]
    first = np.where(np.isin(np.arange(len(row)), splits["paper.test"]), 1000, 0)
    first[splits["grouped.test"]] = 1000
    assert (labels == row % 10).all()
    assert (audio[:, 0, 0, 0] == first + labels + 10 * (row // 20)).all()


def test_the_seed_decides_and_repeats(raw: Path, tmp_path: Path) -> None:
    same = [prepare(raw, tmp_path / name)["fingerprint"] for name in ("a", "b")]
    other = prepare(raw, tmp_path / "c", seed="1")["fingerprint"]
    assert same[0] == same[1] != other


def test_the_audio_becomes_a_square_picture(raw: Path, tmp_path: Path) -> None:
    ramp = np.tile(np.repeat(np.arange(39.0), 13), (300, 1)).astype(np.float32)
    np.save(raw / "data_sp_train.npy", ramp)
    prepare(raw, tmp_path / "data", size="28")
    audio = load(tmp_path / "data")[1]
    assert audio.shape[1:] == (1, 28, 28)
    # bilinear without corner alignment: the centre of picture row i lies at (i + .5) 39/28 - .5
    centres = np.clip((np.arange(28) + 0.5) * 39 / 28 - 0.5, 0, 38)
    np.testing.assert_allclose(audio[0, 0, :, 5], centres, atol=1e-4)


def test_float_pictures_stay_as_they_are(raw: Path, tmp_path: Path) -> None:
    for part in ("train", "test"):
        path = raw / f"data_wr_{part}.npy"
        np.save(path, np.load(path) / 255)
    prepare(raw, tmp_path / "data")
    image = load(tmp_path / "data")[0]
    assert image.dtype == np.float32
    assert 0.9 < image.max() <= 1


def test_a_split_that_comes_with_the_files_is_kept(raw: Path, tmp_path: Path) -> None:
    np.savez(raw / "split_index.npz", train=np.arange(250), val=np.arange(250, 300))
    manifest = prepare(raw, tmp_path / "data")
    sizes = {part: manifest["schemes"]["given"][part] for part in ("train", "val", "test")}
    assert sizes == {"train": 250, "val": 50, "test": 100}
    image, _, _, splits = load(tmp_path / "data")
    row = image[:, 0, 0, 0].astype(int) * 250 + image[:, 0, 0, 1]
    assert row[splits["given.val"]].tolist() == list(range(250, 300))


def test_grouped_is_left_out_with_a_note_where_it_cannot_be(raw: Path, tmp_path: Path) -> None:
    np.save(raw / "data_sp_train.npy", np.zeros((300, 507), np.float32))
    manifest = prepare(raw, tmp_path / "data")
    assert list(manifest["schemes"]) == ["paper"]
    assert any(
        note.startswith("no scheme grouped: class 0") for note in manifest["report"]["notes"]
    )


def test_grouped_drops_test_rows_that_training_has_heard(raw: Path, tmp_path: Path) -> None:
    spoken = np.load(raw / "data_sp_test.npy")
    spoken[:20] = np.load(raw / "data_sp_train.npy")[:20]
    np.save(raw / "data_sp_test.npy", spoken)
    manifest = prepare(raw, tmp_path / "data", test="80")
    notes = " ".join(manifest["report"]["notes"])
    assert "scheme grouped: audio that also occurs in training: 0 of 40 validation rows, 0" in notes


@pytest.mark.parametrize(
    "damage,options,complaint",
    [
        (lambda raw: (raw / "labels_test.npy").unlink(), {}, "lacks labels_test.npy"),
        (
            change("data_wr_train.npy", lambda a: a[:-1]),
            {},
            "data_wr_train.npy has 299 rows, .*300",
        ),
        (
            change("data_sp_test.npy", lambda a: a[:, :-1]),
            {},
            r"data_sp_test.npy has shape \(100, 506\)",
        ),
        (change("data_sp_train.npy", lambda a: a * np.nan), {}, "not finite, in 300 rows"),
        (change("labels_train.npy", lambda a: a + 1), {}, "labels_train.npy must hold one digit"),
        (change("labels_train.npy", lambda a: np.eye(10)[a]), {}, "labels_train.npy"),
        (change("labels_test.npy", lambda a: a.astype(str)), {}, "labels_test.npy holds <U"),
        (
            lambda raw: (raw / "data_wr_test.npy").write_bytes(b"\x93NUMPY"),
            {},
            "data_wr_test.npy cannot be read as an array",
        ),
        (
            lambda raw: np.save(raw / "labels_test.npy", np.array([{}] * 100), allow_pickle=True),
            {},
            r"labels_test.npy cannot be read as an array: it holds Python objects",
        ),
        (lambda raw: (raw / "split_index.npz").write_bytes(b"x"), {}, "must hold the arrays train"),
        (
            lambda raw: np.savez(raw / "split_index.npz", train=[0, 300], val=[1]),
            {},
            "rows beyond the 300",
        ),
        (
            lambda raw: np.savez(raw / "split_index.npz", train=[0, 1], val=[1]),
            {},
            "split_index.npz uses a row twice",
        ),
        (
            lambda raw: None,
            {"train": "290"},
            "train=290 .* there are 300 training and 100 test rows",
        ),
        (lambda raw: None, {"test": "5"}, "at least 10 rows each"),
        (lambda raw: None, {"resize": "area"}, "resize=area: one of"),
        (lambda raw: None, {"mnist": "x"}, "leave mnist= and speech= away"),
    ],
)
def test_bad_input_is_named(
    raw: Path, tmp_path: Path, damage: Any, options: dict[str, str], complaint: str
) -> None:
    damage(raw)
    with pytest.raises(UserError, match=complaint):
        prepare(raw, tmp_path / "data", **options)
    assert not (tmp_path / "data" / "smnist").exists()


def test_without_raw_both_folders_are_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raw=<folder of the six .npy files> is missing"):
        prepare(None, tmp_path / "data", mnist="x")
