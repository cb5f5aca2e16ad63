"""Every script of examples/ runs as its README says, and MILES acts in it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
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
