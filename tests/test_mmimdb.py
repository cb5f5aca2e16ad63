"""MM-IMDb: original films -> prepared folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmimdb_kit import (
    FILMS,
    SPLIT,
    VOCAB,
    colour,
    manifest_of,
    original,
    prepare,
    prepared,
    raw,
    tokenizer,
)

from miles_repro.data import mmimdb
from miles_repro.data.mmimdb import GENRES
from miles_repro.data.mmimdb_raw import PARTS
from miles_repro.data.words import split_words
from miles_repro.errors import UserError

__all__ = ["original", "prepared", "raw", "tokenizer"]  # fixtures


def part_of(imdb_id: str) -> str:
    return next(ours for theirs, ours in PARTS.items() if imdb_id in SPLIT[theirs])


def test_genres() -> None:
    assert len(GENRES) == len(set(GENRES)) == 23


def test_arrays_line_up_with_the_films(prepared: Path) -> None:
    image, text, labels = (np.load(prepared / f"{m}.npy") for m in ("image", "text", "labels"))
    assert image.shape == (12, 3, 24, 24)
    assert image.dtype == np.uint8
    assert text.shape == (12, 16)
    assert text.dtype == np.int32
    assert labels.shape == (12, 23)
    assert labels.dtype == np.uint8
    words = ["", "?", *manifest_of(prepared)["parameters"]["vocabulary"].split(" ")]
    for row, (imdb_id, film) in enumerate(FILMS.items()):  # in the order of their ids
        assert np.abs(image[row].mean(axis=(1, 2)) - colour(imdb_id)).max() < 4
        assert {GENRES[c] for c in np.flatnonzero(labels[row])} == {*film["genres"]} - {"News"}
        got = [words[i] for i in text[row] if i]
        want = split_words(film["plot"][1])  # the longer of the two
        rare = part_of(imdb_id) != "train"
        assert got == [w if w in words else "?" for w in want]
        assert ("?" in got) == rare  # the vocabulary knows training plots only


def test_split_and_statistics(prepared: Path) -> None:
    ids = list(FILMS)
    with np.load(prepared / "splits.npz") as splits:
        for part, count in (("train", 7), ("val", 2), ("test", 3)):
            rows = splits[f"official.{part}"]
            assert len(rows) == count
            assert {part_of(ids[row]) for row in rows} == {part}
    with np.load(prepared / "stats.npz") as stats:
        assert set(stats) == {"official.image.mean", "official.image.std"}
        assert stats["official.image.mean"].shape == (3, 1, 1)
        np.testing.assert_allclose(stats["official.image.std"].ravel() / 255, mmimdb.IMAGENET[1])


def test_manifest_says_it_is_not_the_real_set(prepared: Path) -> None:
    notes = manifest_of(prepared)["report"]["notes"]
    assert any(n.startswith("NOT the real MM-IMDb: 7 / 2 / 3") for n in notes)
    assert any("beyond the 23" in n and "'News': 1" in n for n in notes)


def test_other_counts_are_refused(original: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"7 / 2 / 3 films.*15,552 / 2,608 / 7,799.*partial=true"):
        prepare(original, tmp_path / "mmimdb", partial=False)


def test_the_real_counts_need_no_permission(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmimdb, "SIZES", {"train": 7, "val": 2, "test": 3})
    notes = prepare(original, tmp_path / "mmimdb", partial=False)["report"]["notes"]
    assert not any("NOT" in note for note in notes)


def test_twice_the_same(original: Path, prepared: Path, tmp_path: Path) -> None:
    manifest = prepare(original, tmp_path / "mmimdb", length=16)
    assert manifest["files"] == manifest_of(prepared)["files"]
    assert manifest["fingerprint"] == manifest_of(prepared)["fingerprint"]


def test_long_plots_are_cut_and_counted(original: Path, prepared: Path, tmp_path: Path) -> None:
    manifest = prepare(original, tmp_path / "mmimdb", length=3)
    assert "12 plot(s) longer than 3 tokens cut" in manifest["report"]["notes"]
    text = np.load(tmp_path / "mmimdb" / "text.npy")
    assert np.array_equal(text, np.load(prepared / "text.npy")[:, :3])


def test_bert_tokens(original: Path, tokenizer: Path, tmp_path: Path) -> None:
    manifest = prepare(original, tmp_path / "mmimdb", tokenizer=str(tokenizer), length=8)
    text = np.load(tmp_path / "mmimdb" / "text.npy")
    assert (text[:, 0] == VOCAB.index("[CLS]")).all()
    assert (text[:, 1] == VOCAB.index("a")).all()
    assert manifest["parameters"]["vocabulary"] == ""


def test_text_encoders_read_what_was_prepared(prepared: Path) -> None:
    from miles_repro.encoders.text import Bow, Gru

    tokens = torch.from_numpy(np.load(prepared / "text.npy")).long()
    for encoder in (Bow(vocab_size=10, dim=6), Gru(vocab_size=100, dim=6)):
        assert encoder(tokens).shape == (12, 6)
