"""A small set of a user's own for the tests: a table, vectors and sequences."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from miles_repro.data import command
from miles_repro.data.reader import PreparedData

N = 60
Rows = list[dict[str, Any]]


def table_of(**columns: Callable[[int], object]) -> Rows:
    return [{name: make(i) for name, make in columns.items()} for i in range(N)]


def plain() -> Rows:
    split = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    return table_of(label=lambda i: "abc"[i % 3], split=lambda i: split[i // 3 % 10])


def write_table(path: Path, rows: Rows, encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder with rows.csv (three classes, given split), x.npy (N, 5) and y.npy (N, 4, 3)."""
    folder = tmp_path / "own"
    folder.mkdir()
    rng = np.random.default_rng(0)
    write_table(folder / "rows.csv", plain())
    np.save(folder / "x.npy", rng.normal(size=(N, 5)).astype(np.float32))
    np.save(folder / "y.npy", rng.normal(size=(N, 4, 3)))
    return folder


def prepare(folder: Path, *options: str, table: str = "rows.csv") -> int:
    root = folder.parent
    places = [f"out={root / 'data'}", f"conf_dir={root / 'conf'}"]
    return command.main(["dataset=mine", f"table={folder / table}", *places, *options])


def written(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and configuration."""
    manifest = json.loads((folder.parent / "data/mine/manifest.json").read_text())
    return manifest, yaml.safe_load((folder.parent / "conf/dataset/mine.yaml").read_text())


def data_of(folder: Path, scheme: str = "given", **options: Any) -> PreparedData:
    manifest, _ = written(folder)
    return PreparedData(
        folder.parent / "data/mine", scheme, list(manifest["modalities"]), **options
    )
