"""The Makefile: every target sets up what it needs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from commands import REPO

TARGETS = {
    *("help", "setup", "demo", "test", "test-slow", "test-adversarial", "test-lowest"),
    *("lint", "type", "data"),
    *("reproduce-paper", "tables", "bench", "bench-gpu", "lock", "clean"),
}


def make(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    clean["LC_ALL"] = "C"
    return subprocess.run(
        ["make", "--no-print-directory", *arguments, *(f"{k}={v}" for k, v in variables.items())],
        cwd=REPO,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def fake_python(folder: Path, version_ok: bool, venv_ok: bool) -> str:
    """A stand-in interpreter that answers the Makefile's two questions."""
    path = folder / "python"
    answers = f"*version_info*) exit {int(not version_ok)};; *ensurepip*) exit {int(not venv_ok)};;"
    path.write_text(f'#!/bin/sh\ncase "$2" in {answers} esac\nexit 9\n')
    path.chmod(0o755)
    return str(path)


def test_make_help_lists_every_target() -> None:
    for done in (make(), make("help")):
        listed = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        assert set(listed) == TARGETS
        assert all(listed.values())
    phony = re.search(r"^\.PHONY: (.*)$", (REPO / "Makefile").read_text(), re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == TARGETS


@pytest.mark.parametrize("target", sorted(TARGETS - {"help", "clean"}))
def test_every_target_sets_up_what_it_needs(target: str, tmp_path: Path) -> None:
    done = make("--dry-run", target, VENV=str(tmp_path / "venv"))
    assert done.returncode == 0, done.stderr
    assert "-m venv" in done.stdout
    assert "-c constraints.txt -e '.[dev]'" in done.stdout
    testing = {"test", "test-slow", "test-adversarial"}
    needs_data = target in testing | {"demo", "data", "reproduce-paper", "bench"}
    assert ("prepare_data.py dataset=smnist_mini" in done.stdout) == needs_data


@pytest.mark.parametrize(
    ("version_ok", "venv_ok", "says"),
    [(False, True, "no Python 3.11 to 3.13 among"), (True, False, "install its venv package")],
)
def test_unsuitable_python_is_one_clear_line(
    tmp_path: Path, version_ok: bool, venv_ok: bool, says: str
) -> None:
    python = fake_python(tmp_path, version_ok, venv_ok)
    done = make("setup", VENV=str(tmp_path / "venv"), PYTHON=python)
    assert done.returncode != 0
    own, *makes = done.stderr.splitlines()
    assert own.startswith("error: ")
    assert says in own
    assert python in own
    assert all(line.startswith("make: ***") for line in makes)
    assert not (tmp_path / "venv").exists()


def test_ci_runs_the_documented_command() -> None:
    script = REPO / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make lint type test" in (REPO / "README.md").read_text()
    assert re.search(r"^exec make -k lint type test$", script.read_text(), re.MULTILINE)
