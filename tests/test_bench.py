"""The benchmark runs, and what it compares computes the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import REPO

SECTIONS = (
    *("loop", "strategies", "sweep", "decision", "orchestration", "records", "data", "features"),
    *("precision", "growth"),
)


def bench(*arguments: object, script: str = "scripts/bench") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_runs_at_tiny_size(section: str) -> None:
    """``loop`` fails by itself unless the bare loop's metrics equal ours bit for bit."""
    for name in ("smnist_mini", "mfeat"):
        if not (REPO / "data" / name / "manifest.json").is_file():
            pytest.skip(f"{name} is not prepared: make data")
    run = bench("--quick", "--sections", section)
    assert run.returncode == 0, run.stderr[-2000:]


def test_every_section_is_tested() -> None:
    modules = {p.stem for p in (REPO / "scripts" / "bench").glob("section_*.py")}
    assert modules == {f"section_{name}" for name in SECTIONS}
    assert ",".join(SECTIONS) in "".join(bench("--help").stdout.split())


def refused(*arguments: object, script: str = "scripts/bench") -> str:
    run = bench(*arguments, script=script)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    return line


def test_mistakes_are_one_line_before_anything_is_measured(tmp_path: Path) -> None:
    assert refused("--sections", "nope").startswith("error: no section nope")
    (tmp_path / "file").write_text("")
    line = refused("--quick", "--out", tmp_path / "file" / "out", "--data-dir", REPO / "data")
    assert "cannot be written" in line or "no prepared smnist_mini" in line


GPU = "scripts/bench/gpu.py"


def table(printed: str, title: str) -> list[list[str]]:
    """The rows of a section's table."""
    section = printed.split(f"## {title}\n")[1].split("\n## ", maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line() -> None:
    before = sorted((REPO / "results").rglob("*"))
    assert refused(script=GPU) == "error: torch finds no GPU here: nothing was measured"
    assert refused("--device", "cpu", script=GPU).startswith("error: --device cpu only tries")
    assert sorted((REPO / "results").rglob("*")) == before


@pytest.mark.slow
def test_the_gpu_code_runs_on_a_cpu() -> None:
    run = bench("--device", "cpu", "--quick", "--minutes", 30, script=GPU)
    assert run.returncode == 0, run.stderr[-2000:]
    strict, fp32, bf16 = table(run.stdout, "The same as on the CPU")
    assert strict[1] == fp32[1] == "0.0e+00"
    assert float(bf16[1]) > 0  # another precision is another result: the comparison compares
    assert table(run.stdout, "The same twice")[0][1:] == ["identical", "identical"]
    one, two = table(run.stdout, "Several processes on one card")
    assert (one[0], one[4], two[0]) == ("1", "1.00", "2")
    assert float(one[3].replace(",", "")) > 0
    options = table(run.stdout, "Memory format, bf16, compile")
    assert [row[2].replace(",", "").isdigit() for row in options[:3]] == [True] * 3
    assert len(options) == 5


@pytest.mark.slow
def test_what_does_not_fit_the_time_is_named() -> None:
    run = bench("--device", "cpu", "--quick", "--minutes", 0, script=GPU)
    assert run.returncode == 0
    assert run.stdout.count("not measured: the time was up") == 9
