"""Small LUMA tables."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from miles_repro.data.command import prepare_dataset
from miles_repro.data.manifest import verify

NAMES = ("man", "boy", "house")


SMALL = {
    "classes": ",".join(NAMES),
    "train": "12",
    "val": "6",
    "test": "6",
    "workers": "1",
    "n_mels": "8",
    "frames": "12",
    "image_size": "48",
}


def prepare(raw: Path, data: Path, **options: str) -> dict[str, Any]:
    manifest, _ = prepare_dataset("luma", raw, data, SMALL | options)
    verify(data / "luma")
    return manifest


def write_wav(path: Path, name: str, number: int) -> None:
    """A tone whose pitch tells the class and whose loudness tells the recording."""
    pitch = 500 * 3 ** NAMES.index(name) if name in NAMES else 3000
    tone = np.sin(2 * np.pi * pitch * np.arange(1600) / 16_000)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone * (number + 1) / 64, 16_000)


def pictures(labels: list[str]) -> np.ndarray:
    """Flat images: red tells the class, green the image."""
    images = np.zeros((len(labels), 32, 32, 3), np.uint8)
    known = (*NAMES, "television")
    images[..., 0] = np.array([known.index(name) for name in labels])[:, None, None]
    images[..., 1] = np.arange(len(labels))[:, None, None]
    return images


def write_tables(raw: Path, suffix: str, each: int, first: int = 0) -> None:
    """``each`` items of each class and one of a class that is not wanted."""
    names = {"": "audio_data_unprocessed.csv"}.get(suffix, f"audio/datalist{suffix}.csv")
    labels = [name for name in NAMES for _ in range(each)] + ["television"]
    rows = [(f"cv_audio/{first + i}.wav", name) for i, name in enumerate(labels)]
    for at, (path, name) in enumerate(rows):
        write_wav(raw / "audio" / path, name, first + at)
    with (raw / names).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "path", "label", "class"])
        table.writerows([i, path, name, 0] for i, (path, name) in enumerate(rows))
    image = {"": "image_data_unprocessed.npz"}.get(suffix, f"image_data{suffix}.npz")
    np.savez(raw / image, image=pictures(labels), label=np.array(labels))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The unprocessed dump, 10 items a class."""
    folder = tmp_path / "raw"
    write_tables(folder, "", each=10)
    return folder
