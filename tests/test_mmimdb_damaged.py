"""MM-IMDb: every kind of bad film, split and folder, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmimdb_kit import FILMS, colour, original, prepare, raw
from PIL import Image

from miles_repro.data.command import main
from miles_repro.errors import UserError

__all__ = ["original", "raw"]  # fixtures

VICTIM = "0000003"


def spoil(raw: Path, how: str) -> tuple[Path, str]:
    """Damage one film; returns the file to be named and a word of the reason expected."""
    path, poster = raw / "dataset" / f"{VICTIM}.json", raw / "dataset" / f"{VICTIM}.jpeg"
    film = FILMS[VICTIM]
    edits: dict[str, tuple[dict[str, Any] | list[Any], str]] = {
        "no plot key": ({"genres": film["genres"]}, "no key 'plot'"),
        "no genres key": ({"plot": film["plot"]}, "no key 'genres'"),
        "no plots": (film | {"plot": []}, "empty plot"),
        "blank plots": (film | {"plot": ["", " ..."]}, "empty plot"),
        "plot is text": (film | {"plot": "a plot"}, "'plot' is not a list"),
        "plot holds null": (film | {"plot": ["a", None]}, "'plot' is not a list"),
        "foreign genres": (film | {"genres": ["Adult"]}, "none of the 23 genres"),
        "not an object": ([1, 2], "not a json object"),
    }
    if how in edits:
        content, reason = edits[how]
        path.write_text(json.dumps(content))
        return path, reason
    if how == "json missing":
        path.unlink()
        return path, "missing"
    if how == "json cut":
        path.write_text(json.dumps(film)[:30])
        return path, "not readable as json"
    if how == "json not utf-8":
        path.write_bytes(b'{"plot": ["\xff"]}')
        return path, "not readable as json"
    if how == "poster missing":
        poster.unlink()
        return poster, "missing"
    poster.write_bytes(
        {"poster empty": b"", "poster cut": poster.read_bytes()[:400], "poster text": b"x" * 90}[
            how
        ]
    )
    return poster, "empty file" if how == "poster empty" else "not readable as a picture"


SPOILS = [
    *("no plot key", "no genres key", "no plots", "blank plots", "plot is text", "plot holds null"),
    *("foreign genres", "not an object", "json missing", "json cut", "json not utf-8"),
    *("poster missing", "poster empty", "poster cut", "poster text"),
]


@pytest.mark.parametrize("how", SPOILS)
def test_bad_films_are_named_and_left_out_when_allowed(raw: Path, tmp_path: Path, how: str) -> None:
    path, reason = spoil(raw, how)
    manifest = prepare(raw, tmp_path / "mmimdb")
    assert len(manifest["report"]["skipped"]) == 1
    entry = manifest["report"]["skipped"][0]
    assert entry["file"] == str(path)
    assert reason in entry["reason"]
    assert manifest["rows"] == 11
    image = np.load(tmp_path / "mmimdb" / "image.npy")
    rest = [imdb_id for imdb_id in FILMS if imdb_id != VICTIM]
    for row, imdb_id in enumerate(rest):  # rows did not slip
        assert np.abs(image[row].mean(axis=(1, 2)) - colour(imdb_id)).max() < 4


@pytest.mark.parametrize("how", SPOILS)
def test_bad_films_are_refused_otherwise(raw: Path, tmp_path: Path, how: str) -> None:
    path, reason = spoil(raw, how)
    with pytest.raises(UserError) as error:
        prepare(raw, tmp_path / "mmimdb", partial=False)
    assert str(path) in str(error.value)
    assert reason in str(error.value)
    assert "1 file(s) refused" in str(error.value)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_other_channel_counts_are_converted_and_listed(
    raw: Path, tmp_path: Path, mode: str
) -> None:
    path = raw / "dataset" / f"{VICTIM}.jpeg"
    grey = Image.new("RGB", (20, 32), (90, 90, 90))
    picture = grey.quantize(4) if mode == "P" else grey.convert(mode)
    picture.save(path, format="PNG" if mode in ("P", "RGBA") else "JPEG")
    notes = prepare(raw, tmp_path / "mmimdb")["report"]["notes"]
    assert f"1 poster(s) converted to RGB: {VICTIM}" in notes
    row = list(FILMS).index(VICTIM)
    got = np.load(tmp_path / "mmimdb" / "image.npy")[row]
    assert np.abs(got.astype(int) - 90).max() < 6


def test_films_without_a_part_are_counted(raw: Path, tmp_path: Path) -> None:
    (raw / "dataset" / "9999999.json").write_text("{}")
    notes = prepare(raw, tmp_path / "mmimdb")["report"]["notes"]
    assert any(note.startswith("1 film(s)") and "split.json" in note for note in notes)


@pytest.mark.parametrize(
    "content, reason",
    [
        ("{", "is not a split"),
        ('{"train": [], "dev": []}', "is not a split"),
        ('{"train": ["0000001"], "dev": ["0000001"], "test": []}', "0000001 more than once"),
        ('{"train": ["0000001"], "dev": ["0000002"], "test": []}', "no film for test"),
    ],
)
def test_bad_splits(raw: Path, tmp_path: Path, content: str, reason: str) -> None:
    (raw / "split.json").write_text(content)
    with pytest.raises(UserError, match=reason):
        prepare(raw, tmp_path / "mmimdb")


@pytest.mark.parametrize(
    "gone, reason", [("split.json", "neither split.json"), ("dataset", "no folder dataset")]
)
def test_missing_parts_of_the_raw_folder(raw: Path, tmp_path: Path, gone: str, reason: str) -> None:
    (raw / gone).rename(raw / "elsewhere")
    with pytest.raises(UserError, match=reason):
        prepare(raw, tmp_path / "mmimdb")


def test_senseless_options(original: Path, tmp_path: Path) -> None:
    for option in ({"size": 0}, {"length": 0}, {"vocab_size": 2}):
        with pytest.raises(UserError, match="must be"):
            prepare(original, tmp_path / "mmimdb", **option)


def test_command(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["dataset=mmimdb", f"raw={original}", f"out={tmp_path}", "size=16", "workers=1"]
    assert main(command) == 2
    assert "partial=true" in capsys.readouterr().err
    assert main([*command, "partial=true"]) == 0
    assert "NOT the real MM-IMDb" in capsys.readouterr().out
    assert main(["dataset=mmimdb", f"out={tmp_path}", "--verify"]) == 0
    assert main(["dataset=mmimdb", f"out={tmp_path / 'other'}"]) == 2
