"""The benchmark runs, and what it compares computes the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import REPO


@pytest.mark.slow
@pytest.mark.parametrize(
    "section", ["loop", "strategies", "orchestration", "data", "stacks", "growth"]
)
def test_a_section_runs_at_tiny_size(section: str) -> None:
    """``loop`` fails by itself unless the bare loop's metrics equal ours bit for bit."""
    if not (REPO / "data" / "smnist_mini" / "manifest.json").is_file():
        pytest.skip("smnist_mini is not prepared: make data")
    run = subprocess.run(
        [sys.executable, "scripts/bench.py", "--quick", "--sections", section],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]


def test_an_unknown_section_is_one_line() -> None:
    run = subprocess.run(
        [sys.executable, "scripts/bench.py", "--sections", "nope"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: no section nope")
    assert len(run.stderr.splitlines()) == 1


def test_an_output_that_cannot_be_used_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "data" / "smnist_mini" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "results.json").write_text('{"loop": []}')
    for out, words in (("file/out", "cannot write"), ("damaged", "results.json is damaged")):
        places = ["--data-dir", str(tmp_path / "data"), "--out", str(tmp_path / out)]
        run = subprocess.run(
            [sys.executable, "scripts/bench.py", "--sections", "loop", *places],
            cwd=REPO,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 2, run.stderr
        assert words in run.stderr
        assert len(run.stderr.splitlines()) == 1  # no "loop ..."
