"""Every script of examples/ runs as its README says, and MILES acts in it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miles_repro.data import mfeat
from miles_repro.data.writer import Card, Preparation

FOLDER = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOK = FOLDER / "notebook.ipynb"
EXTRA = {
    "accelerate_loop": ("accelerate",),
    "hf_trainer": ("transformers", "accelerate"),
    "lightning_callback": ("lightning",),
}
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "toy")


def run(name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MILES" not in done.stderr  # no warning of its own
    return done.stdout


@pytest.mark.parametrize(
    "name", [pytest.param(s, marks=[pytest.mark.slow] if s in EXTRA else []) for s in SCRIPTS]
)
def test_example(name: str, tmp_path: Path) -> None:
    for package in EXTRA.get(name, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"examples/{name}.py was not run: pip install {package}")
    printed = run(name, tmp_path)
    if name == "lightning_callback":
        assert re.search(
            r"^6 \{'image': 0\.5, 'audio': 1\.0\} \[0\.01, 0\.02, 0\.02\]$", printed, re.M
        )
    else:
        assert "{'image': 0.5, 'audio': 1.0}" in printed
    if name == "distributed":
        assert "replicas agree: True" in printed


def test_the_page_names_every_example() -> None:
    table = (FOLDER / "README.md").read_text()
    listed = re.findall(r"^\| `(\w+)\.py` \|.*\| (.*) \|$", table, re.MULTILINE)
    assert sorted(name for name, _ in listed) == SCRIPTS
    for name, needs in listed:
        assert tuple(needs.split(", ")) == EXTRA.get(name, ("torch",))


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells in order, where the data set lies prepared; nothing is committed with output."""
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    prepare_mfeat_like(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILES_DATA", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    names: dict[str, Any] = {}
    for cell in cells:
        exec(cell["source"], names)
    assert len(names["everything"]) == 1 + len(names["some"]) == 10
    assert len(names["mr"].curves(names["one"]["run_id"])) == names["one"]["epochs"]


def prepare_mfeat_like(data: Path) -> None:
    """A small set with mfeat's name, modalities and widths."""
    rng = np.random.default_rng(0)
    y = np.arange(100) % 10
    card = Card("mfeat", mfeat.VERSION, "multiclass", tuple("0123456789"), "synthetic", "none")
    with Preparation(data / "mfeat", card, workers=1) as prep:
        for m, width in (("mor", 6), ("zer", 47), ("fou", 76)):
            centres = rng.normal(size=(10, width))
            prep.write(m, (centres[y] + rng.normal(size=(100, width))).astype(np.float32))
            prep.normalise(m, axes=())
        prep.write("labels", y)
        prep.split("fixed", train=np.arange(60), val=np.arange(60, 80), test=np.arange(80, 100))
        prep.finish()
