"""A small MM-IMDb in its original form, and what is prepared from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from miles_repro.data import mmimdb
from miles_repro.data.mmimdb import GENRES

CONF = Path(__file__).resolve().parents[1] / "conf" / "dataset" / "mmimdb.yaml"


DEFAULTS = yaml.safe_load(CONF.read_text())["preparation"]


VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "hero", "##es", "re", "##turn", "."]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder


# ---- the raw form -----------------------------------------------------------------------------

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


FILMS: dict[str, dict[str, Any]] = {
    f"{i:07d}": {
        "title": f"Film {i}",
        "genres": [GENRES[i], GENRES[i + 1], "News"][: 2 + (i == 4)],
        "plot": ["short", f"A much longer plot about word{'x' * i} and film number {i}"],
    }
    for i in range(1, 13)
}


SPLIT = {
    "train": ["0000007", *(f"{i:07d}" for i in range(1, 7))],
    "dev": ["0000009", "0000008"],
    "test": ["0000010", "0000012", "0000011"],
}


def colour(imdb_id: str) -> tuple[int, int, int]:
    return COLOURS[int(imdb_id) % 3]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("mmimdb")
    (raw / "dataset").mkdir()
    for imdb_id, film in FILMS.items():
        (raw / "dataset" / f"{imdb_id}.json").write_text(json.dumps(film))
        Image.new("RGB", (20, 32), colour(imdb_id)).save(raw / "dataset" / f"{imdb_id}.jpeg")
    (raw / "split.json").write_text(json.dumps(SPLIT))
    return raw


@pytest.fixture
def raw(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "raw"))


def prepare(raw: Path, out: Path, **options: Any) -> dict[str, Any]:
    return mmimdb.prepare(
        raw, out, **{**DEFAULTS, "partial": True, "workers": 1, "size": 24, **options}
    )


@pytest.fixture(scope="module")
def prepared(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "mmimdb"
    prepare(original, out, length=16)
    return out


def manifest_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())
