"""A few synthetic CREMA-D clips, and what is prepared from them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from miles_repro.data import cremad
from miles_repro.data.cremad_index import PARTS, SCHEMES, official_clips

av = pytest.importorskip("av")


CONF = Path(__file__).resolve().parents[1] / "conf" / "dataset" / "cremad.yaml"


DEFAULTS = yaml.safe_load(CONF.read_text())["preparation"]


SETTINGS = cremad.Settings(**DEFAULTS)


CLIPS = official_clips()


NAMES = [clip.name for clip in CLIPS]


# ---- the index --------------------------------------------------------------------------------


def labels_folder(shared_data: Path) -> Path:
    return shared_data / "cremad_labels"


def listed(shared_data: Path, part: str) -> dict[str, str]:
    with (labels_folder(shared_data) / f"{part}.csv").open() as file:
        return {row[0]: row[1] for row in csv.reader(file)}


def names_of(scheme: str, part: str) -> list[str]:
    return [clip.name for clip in CLIPS if clip.parts[scheme] == part]


# ---- the spectrogram --------------------------------------------------------------------------


def tone(hertz: float, seconds: float = 3.0, level: float = 0.3) -> np.ndarray:
    t = np.arange(int(seconds * SETTINGS.rate)) / SETTINGS.rate
    return (level * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


# ---- raw -> prepared --------------------------------------------------------------------------


def write_video(path: Path, frames: int, codec: str = "flv", fps: int = 30) -> None:
    """Frame i is grey of level 10 i."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frames):
            picture = np.full((48, 64, 3), 10 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def chosen_clips() -> list[str]:
    """Two clips for every part of every scheme: several actors, every emotion."""
    chosen: list[str] = []
    for scheme in SCHEMES:
        for part in PARTS.values():
            names = names_of(scheme, part)
            chosen += [names[len(names) // 3], names[2 * len(names) // 3]]
    return sorted({*chosen, NAMES[0]})


CHOSEN = chosen_clips()


HERTZ = {name: 300 + 200 * i for i, name in enumerate(CHOSEN)}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official layout with real wav and flv files, a few clips of it."""
    raw = tmp_path_factory.mktemp("cremad")
    (raw / "AudioWAV").mkdir()
    (raw / "VideoFlash").mkdir()
    write_video(raw / "video.flv", frames=24)
    for name in CHOSEN:
        soundfile.write(raw / "AudioWAV" / f"{name}.wav", tone(HERTZ[name], 1.2), SETTINGS.rate)
        shutil.copy(raw / "video.flv", raw / "VideoFlash" / f"{name}.flv")
    (raw / "video.flv").unlink()
    return raw


@pytest.fixture
def raw(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "raw"))


def prepare(raw: Path, out: Path, **options: Any) -> dict[str, Any]:
    return cremad.prepare(raw, out, **{**DEFAULTS, "partial": True, "workers": 1, **options})


@pytest.fixture(scope="module")
def prepared(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "cremad"
    prepare(original, out)
    return out
