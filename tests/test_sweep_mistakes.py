"""Mistakes in a command line of runs: one line, before anything trains."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import REPO, finish, train


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr=0.01", "no key 'lr': did you mean optimizer.lr?"),
        ("strategy.taau=0.1", "no key 'strategy.taau': did you mean strategy.tau"),
        ("strategi=miles", "no key 'strategi': did you mean strategy"),
        ("strategy=mile", "no strategy 'mile': did you mean miles"),
        ("seed=${seed}", "error: configuration: "),
    ],
)
def test_a_mistaken_override_is_one_line_that_names_the_right_key(
    tmp_path: Path, override: str, words: str
) -> None:
    done = finish(
        [sys.executable, str(REPO / "train.py"), f"runtime.runs_dir={tmp_path}", override]
    )
    assert done.returncode == 2, done.stdout + done.stderr
    text = done.stdout + done.stderr
    assert words in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("jobs=[a,b]", "jobs=['a', 'b']: a file, or null"),
        ("jobs=/dev/zero", "jobs=/dev/zero: no such file"),
        ("params=3", "params=3: a mapping of keys to values, or null"),
        ("max_batch_size=-1", "max_batch_size=-1: from 1, or null"),
        ("max_batch_size=x", "max_batch_size=x: from 1, or null"),
    ],
)
def test_a_mistake_about_the_sweep_itself_is_one_line(
    tmp_path: Path, override: str, words: str
) -> None:
    script = [sys.executable, str(REPO / "train.py"), "-m", f"runtime.runs_dir={tmp_path}"]
    done = finish([*script, f"hydra.sweeper.{override}"])
    assert done.returncode == 2
    assert done.stdout + done.stderr == f"error: hydra.sweeper.{words}\n"


def test_a_mistake_in_a_grid_is_found_before_anything_trains(
    tiny_data: Path, tmp_path: Path
) -> None:
    done = finish(train(tiny_data, tmp_path / "runs", "strategy=vanilla_aux,typo", "epochs=1"))
    assert done.returncode == 2, done.stdout
    assert "no strategy 'typo'" in done.stderr
    assert not list(tmp_path.rglob("summary.json"))
