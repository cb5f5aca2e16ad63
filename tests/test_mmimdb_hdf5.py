"""MM-IMDb from its HDF5 file: the same as from the original films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmimdb_kit import FILMS, SPLIT, colour, original, prepare, prepared, raw, tokenizer

from miles_repro.data import mmimdb
from miles_repro.data.mmimdb import GENRES
from miles_repro.errors import UserError

__all__ = ["original", "prepared", "raw", "tokenizer"]  # fixtures

# ---- the HDF5 form ----------------------------------------------------------------------------


def split_table(bounds: dict[str, tuple[int, int]]) -> np.ndarray:
    """The attribute Fuel writes: one entry per part and source."""
    h5py = pytest.importorskip("h5py")
    dtype = np.dtype(
        [
            ("split", "S5"),
            ("source", "S9"),
            ("start", np.int64),
            ("stop", np.int64),
            ("indices", h5py.special_dtype(ref=h5py.Reference)),
            ("available", bool),
            ("comment", "S1"),
        ]
    )
    entries = [
        (part.encode(), source, start, stop, h5py.Reference(), True, b".")
        for part, (start, stop) in bounds.items()
        for source in (b"genres", b"images", b"sequences")
    ]
    return np.array(entries, dtype=dtype)


ORDER = [i for part in ("train", "dev", "test") for i in SPLIT[part]]


COLUMNS = GENRES[::-1]


SEQUENCES = [[5, 9, 0, 9], [9, 9, 5], [9, 7], [7, 9, 5], [9], [0, 9], [9, 5], *[[9, 11]] * 5]


BOUNDS = {"train": (0, 7), "dev": (7, 9), "test": (9, 12)}


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    """The published file's layout: BGR minus the mean colour, int32, rows in split order."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "multimodal_imdb.hdf5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (12, 3, 256, 160), dtype="int32")
        sequences = file.create_dataset("sequences", (12,), dtype=h5py.vlen_dtype(np.int32))
        genres = file.create_dataset("genres", (12, 23), dtype="int32")
        file["imdb_ids"] = np.array(ORDER, dtype="S7")
        for row, imdb_id in enumerate(ORDER):
            bgr = np.array(colour(imdb_id)[::-1]) - [103.939, 116.779, 123.68]
            images[row] = np.broadcast_to(bgr[:, None, None], (3, 256, 160))
            sequences[row] = SEQUENCES[row]
            genres[row] = [int(g in FILMS[imdb_id]["genres"]) for g in COLUMNS]
        genres.attrs["target_names"] = json.dumps(COLUMNS)
        file.attrs["split"] = split_table(BOUNDS)
    return path


def edit(path: Path) -> Any:
    import h5py

    return h5py.File(path, "r+")


def test_hdf5_gives_the_same_images_labels_and_split(
    hdf5: Path, prepared: Path, tmp_path: Path
) -> None:
    manifest = prepare(hdf5.parent, tmp_path / "mmimdb", length=16)
    out = tmp_path / "mmimdb"
    assert np.array_equal(np.load(out / "labels.npy"), np.load(prepared / "labels.npy"))
    with np.load(out / "splits.npz") as mine, np.load(prepared / "splits.npz") as want:
        assert all(np.array_equal(mine[key], want[key]) for key in want)
    image = np.load(out / "image.npy")
    for row, imdb_id in enumerate(FILMS):
        assert np.abs(image[row].mean(axis=(1, 2)) - colour(imdb_id)).max() <= 1
    assert manifest["parameters"]["form"] == "hdf5"


def test_hdf5_words_are_ranked_on_training_rows(hdf5: Path, tmp_path: Path) -> None:
    manifest = prepare(hdf5.parent, tmp_path / "mmimdb", length=4, vocab_size=4)
    assert manifest["parameters"]["vocabulary"] == "w9 w5"
    text = np.load(tmp_path / "mmimdb" / "text.npy")
    row = sorted(ORDER).index(ORDER[0])
    assert text[row].tolist() == [3, 2, 1, 2]
    assert text[sorted(ORDER).index(ORDER[2])].tolist() == [2, 1, 0, 0]


def test_hdf5_without_own_split_or_names(
    hdf5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmimdb, "SIZES", {"train": 7, "val": 2, "test": 3})
    with edit(hdf5) as file:
        del file.attrs["split"]
        del file["genres"].attrs["target_names"]
        file["genres"][:] = file["genres"][:][:, ::-1]
    manifest = prepare(hdf5.parent, tmp_path / "mmimdb", partial=False)
    assert len(manifest["report"]["notes"]) >= 2
    with np.load(tmp_path / "mmimdb" / "splits.npz") as splits:
        rows = splits["official.val"]
    assert sorted(sorted(ORDER)[row] for row in rows) == sorted(SPLIT["dev"])
    labels = np.load(tmp_path / "mmimdb" / "labels.npy")
    assert labels[0].nonzero()[0].tolist() == [GENRES.index(g) for g in FILMS["0000001"]["genres"]]


def test_hdf5_in_plain_colours(hdf5: Path, tmp_path: Path) -> None:
    with edit(hdf5) as file:
        for row, imdb_id in enumerate(ORDER):
            plain = np.array(colour(imdb_id))[:, None, None]
            file["images"][row] = np.broadcast_to(plain, (3, 256, 160))
    prepare(hdf5.parent, tmp_path / "mmimdb")
    image = np.load(tmp_path / "mmimdb" / "image.npy")
    for row, imdb_id in enumerate(FILMS):
        assert np.abs(image[row].mean(axis=(1, 2)) - colour(imdb_id)).max() <= 1


@pytest.mark.parametrize("how", ["plot", "genres"])
def test_hdf5_bad_films(hdf5: Path, tmp_path: Path, how: str) -> None:
    with edit(hdf5) as file:
        if how == "plot":
            file["sequences"][2] = np.zeros(0, np.int32)
        else:
            file["genres"][2] = 0
    manifest = prepare(hdf5.parent, tmp_path / "mmimdb")
    assert manifest["report"]["skipped"] == [
        {
            "file": f"{hdf5}:{ORDER[2]}",
            "reason": "empty plot" if how == "plot" else "none of the 23 genres",
        }
    ]


@pytest.mark.parametrize("how", ["rubbish", "dataset", "channels", "names", "split", "bert"])
def test_other_hdf5_files_are_refused(
    hdf5: Path, tmp_path: Path, tokenizer: Path, how: str
) -> None:
    options = {"tokenizer": str(tokenizer)} if how == "bert" else {}
    if how == "rubbish":
        hdf5.write_bytes(b"x" * 2000)
    elif how != "bert":
        with edit(hdf5) as file:
            if how == "dataset":
                del file["sequences"]
            elif how == "channels":
                del file["images"]
                file["images"] = np.zeros((12, 1, 4, 4), np.int32)
            elif how == "names":
                file["genres"].attrs["target_names"] = json.dumps(["Adult", *GENRES[1:]])
            else:
                file.attrs["split"] = split_table({"train": (0, 7), "dev": (7, 9)})
    reason = {
        "rubbish": "cannot be read",
        "dataset": "no dataset sequences",
        "channels": r"images are \(12, 1, 4, 4\)",
        "names": "Adult, Drama",
        "split": "no usable split",
        "bert": "raw form",
    }[how]
    with pytest.raises(UserError, match=reason) as error:
        prepare(hdf5.parent, tmp_path / "mmimdb", **options)
    assert str(hdf5) in str(error.value)
