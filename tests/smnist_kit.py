"""Small S-MNIST sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miles_repro.data.command import prepare_dataset
from miles_repro.data.manifest import verify

SMALL = {"train": "160", "val": "40", "test": "40", "size": "0", "workers": "1"}


def prepare(raw: Path | None, data: Path, **options: str) -> dict[str, Any]:
    manifest, _ = prepare_dataset("smnist", raw, data, SMALL | options)
    verify(data / "smnist")
    return manifest


def load(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    folder = data / "smnist"
    with np.load(folder / "splits.npz") as splits:
        parts = {name: splits[name] for name in splits.files}
    return (*(np.load(folder / f"{m}.npy") for m in ("image", "audio", "labels")), parts)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Six files: 300 + 100 rows; pixel 0 names the row, MFCC 0 the recording (each heard twice)."""
    folder = tmp_path / "raw"
    folder.mkdir()
    random = np.random.default_rng(0)
    for part, n, first in (("train", 300, 0), ("test", 100, 1000)):
        labels = np.arange(n) % 10
        written = random.integers(0, 256, (n, 784), dtype=np.uint8)
        written[:, 0], written[:, 1] = np.arange(n) // 250, np.arange(n) % 250
        recording = first + labels + 10 * (np.arange(n) // 20)
        spoken = np.repeat(recording[:, None], 507, axis=1).astype(np.float32)
        for name, array in (("data_wr", written), ("data_sp", spoken), ("labels", labels)):
            np.save(folder / f"{name}_{part}.npy", array)
    return folder
