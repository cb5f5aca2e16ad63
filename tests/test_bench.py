"""The benchmark runs, and what it compares computes the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import REPO

SECTIONS = ("loop", "strategies", "sweep", "orchestration", "data", "precision", "growth")


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/bench", *map(str, arguments)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_runs_at_tiny_size(section: str) -> None:
    """``loop`` fails by itself unless the bare loop's metrics equal ours bit for bit."""
    if not (REPO / "data" / "smnist_mini" / "manifest.json").is_file():
        pytest.skip("smnist_mini is not prepared: make data")
    run = bench("--quick", "--sections", section)
    assert run.returncode == 0, run.stderr[-2000:]


def test_every_section_is_tested() -> None:
    modules = {p.stem for p in (REPO / "scripts" / "bench").glob("section_*.py")}
    assert modules == {f"section_{name}" for name in SECTIONS}
    assert ",".join(SECTIONS) in "".join(bench("--help").stdout.split())


def refused(*arguments: object) -> str:
    run = bench(*arguments)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    return line


def test_mistakes_are_one_line_before_anything_is_measured(tmp_path: Path) -> None:
    assert refused("--sections", "nope").startswith("error: no section nope")
    (tmp_path / "file").write_text("")
    line = refused("--quick", "--out", tmp_path / "file" / "out", "--data-dir", REPO / "data")
    assert "cannot be written" in line or "no prepared smnist_mini" in line
