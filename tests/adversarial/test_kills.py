"""Kills at random moments: nothing finished changes, no process is left, and the same command ends
with the records of an undisturbed sweep, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from commands import finish, leftovers, members, results, start, train, wait_for
from harness import FIGURES

pytestmark = pytest.mark.slow
KILLS = 60
SWEEP = ("strategy=slow", "fusion=sum", "seed=range(0,6)", "epochs=12", "strategy.seconds=0.1")
WAYS = ("parent", "group", "term", "hup", "worker", "parent")
"""Of the launching process alone (twice as often) or of all; by signals; of a worker alone."""
LEFT_S = 20.0


def begun(runs: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in runs.glob("*/*/*/*/metrics.jsonl")}


def moved(process: subprocess.Popen[bytes], runs: Path, before: dict[Path, int]) -> bool:
    return process.poll() is not None or begun(runs) != before


def works(pid: int) -> bool:
    try:
        return b"resource_tracker import" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # ended meanwhile
        return False


def strike(process: subprocess.Popen[bytes], way: str, draw: random.Random) -> None:
    if way == "group":
        os.killpg(process.pid, signal.SIGKILL)
    elif way == "worker":
        # joblib's resource tracker is none: without it the sweep ends well, but joblib complains
        workers = [pid for pid in members(process.pid) if pid != process.pid and works(pid)]
        os.kill(draw.choice(workers) if workers else process.pid, signal.SIGKILL)
    else:
        number = {"parent": signal.SIGKILL, "term": signal.SIGTERM, "hup": signal.SIGHUP}[way]
        process.send_signal(number)


def test_kills(tiny_data: Path, tmp_path: Path) -> None:
    draw = random.Random(60)
    figures = FIGURES.setdefault("kills", Counter())
    reference = finish(train(tiny_data, tmp_path / "undisturbed", *SWEEP))
    assert reference.returncode == 0, reference.stderr
    undisturbed = results(tmp_path / "undisturbed")
    log, kills, sweeps = tmp_path / "log", 0, 0
    began = time.monotonic()
    while kills < KILLS:
        runs = tmp_path / f"runs{sweeps}"
        sweeps += 1
        for _ in range(KILLS):
            launcher, way = ("local", "in_process")[kills % 2], WAYS[kills // 2 % len(WAYS)]
            process = start(train(tiny_data, runs, *SWEEP, f"hydra/launcher={launcher}"), log)
            if draw.random() < 0.8:  # else at any moment of its start
                wait_for(partial(moved, process, runs, begun(runs)))
            time.sleep(draw.uniform(0, 1.0))
            finished = results(runs)
            if process.poll() is not None:  # the sweep ended before it could be struck
                break
            strike(process, way, draw)
            kills += 1
            figures["kills"] += 1
            figures[f"{launcher}, {way}"] += 1
            process.wait(timeout=60)
            wait_for(partial(lambda group: not members(group), process.pid), LEFT_S)
            print(f"{kills} {launcher} {way} {time.monotonic() - began:.0f} s", flush=True)
            now = results(runs)
            figures["records lost"] += sum(now.get(k) != v for k, v in finished.items())
            assert finished.items() <= now.items()
            if kills == KILLS:
                break
        last = finish(train(tiny_data, runs, *SWEEP, "hydra/launcher=local"))
        assert last.returncode == 0, last.stdout + last.stderr
        assert results(runs) == undisturbed
        assert not leftovers(runs)
    figures["sweeps that ended as undisturbed"] = sweeps
    _, found, rest = log.read_text().partition("Traceback")
    assert not found, rest[:3000]
