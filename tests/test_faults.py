"""Kills, concurrent launchers, deadly runs, full and read-only disks: nothing finished is lost, and
the same command ends with the records of an undisturbed sweep, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import finish, leftovers, reproduce, results, start, train, trained, wait_for

from miles_repro.records import load_rows, load_summaries

pytestmark = pytest.mark.slow
EPOCHS = 24
SWEEP = ("strategy=slow", "fusion=sum", "seed=range(0,8)", f"epochs={EPOCHS}")
PROTOCOL = ("--strategies", "slow", "--fusions", "sum", "--no-ablations", "--no-estimate")


@pytest.fixture(scope="module")
def undisturbed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("undisturbed")
    done = finish(train(tiny_data, runs, *SWEEP, "hydra/launcher=local"))
    assert done.returncode == 0, done.stdout + done.stderr
    return results(runs)


@pytest.fixture(scope="module")
def undisturbed_protocol(
    tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Two trials on seed 0, the winner on seed 1."""
    folder = tmp_path_factory.mktemp("protocol")
    done = finish(protocol(tiny_data, folder))
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(folder / "runs")
    assert len(found) == 3
    return found


def protocol(data: Path, folder: Path, *strategies: str) -> list[str]:
    options = [
        *PROTOCOL,
        "--results",
        str(folder / "results"),
        f"epochs={EPOCHS}",
        "budget.seeds=1",
    ]
    if strategies:
        options[1] = ",".join(strategies)
    return reproduce("run", data, folder / "runs", *options)


def epochs_saved(runs: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in runs.glob("*/*/*/*/last.pt")}


def wait_for_an_epoch(process: subprocess.Popen[bytes], runs: Path) -> None:
    before = epochs_saved(runs)
    wait_for(
        lambda: process.poll() is not None or bool(epochs_saved(runs).items() - before.items())
    )


def kill_group(process: subprocess.Popen[bytes]) -> bool:
    """Kill everything the command started. False where it had already ended."""
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return alive


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of the joblib workers in the command's group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            group = int((entry / "stat").read_text().rpartition(")")[2].split()[2])
        except (OSError, ValueError, IndexError):
            continue
        if group == process.pid and b"LokyProcess" in words:
            found.append(int(entry.name))
    return found


def test_a_sweep_killed_at_random_points_ends_like_an_undisturbed_one(
    tiny_data: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    draw = random.Random(20)
    runs, log = tmp_path / "runs", tmp_path / "log"
    kills = resumed = 0
    for attempt in range(10):
        launcher = ("local", "in_process")[attempt % 2]
        process = start(train(tiny_data, runs, *SWEEP, f"hydra/launcher={launcher}"), log)
        wait_for_an_epoch(process, runs)
        time.sleep(draw.uniform(0, 0.9))
        finished = results(runs)
        kills += kill_group(process)
        resumed += bool(epochs_saved(runs))
        assert finished.items() <= results(runs).items()
    assert kills == 10, log.read_text()
    assert resumed >= 8  # all but kills between two runs
    last = finish(train(tiny_data, runs, *SWEEP, "hydra/launcher=local"))
    assert last.returncode == 0, last.stdout + last.stderr
    assert results(runs) == undisturbed
    assert not leftovers(runs)


def test_killed_workers_are_replaced_by_the_same_command(
    tiny_data: Path, tmp_path: Path, undisturbed_protocol: dict[str, Any]
) -> None:
    """A worker that dies ends joblib's sweep; reproduce.py goes on with what is missing."""
    draw = random.Random(21)
    log = tmp_path / "log"
    process = start(protocol(tiny_data, tmp_path), log)
    kills = 0
    while kills < 3 and process.poll() is None:
        wait_for_an_epoch(process, tmp_path / "runs")
        time.sleep(draw.uniform(0, 0.5))
        for worker in workers_of(process)[:1]:
            os.kill(worker, signal.SIGKILL)
            kills += 1
    assert process.wait(timeout=1200) == 0, log.read_text()
    assert kills == 3
    assert "the sweep broke off: TerminatedWorkerError" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert results(tmp_path / "runs") == undisturbed_protocol
    assert not leftovers(tmp_path / "runs")


def test_a_reproduction_killed_whole_goes_on(
    tiny_data: Path, tmp_path: Path, undisturbed_protocol: dict[str, Any]
) -> None:
    draw = random.Random(22)
    log = tmp_path / "log"
    for _ in range(3):
        process = start(protocol(tiny_data, tmp_path), log)
        wait_for_an_epoch(process, tmp_path / "runs")
        time.sleep(draw.uniform(0, 0.5))
        assert kill_group(process), log.read_text()
    last = finish(protocol(tiny_data, tmp_path))
    assert last.returncode == 0, last.stdout + last.stderr
    assert results(tmp_path / "runs") == undisturbed_protocol


def test_two_sweeps_at_once_train_every_run_once(
    tiny_data: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    runs = tmp_path / "runs"
    command = train(tiny_data, runs, *SWEEP, "hydra/launcher=local")
    logs = [tmp_path / "log1", tmp_path / "log2"]
    codes = [p.wait(timeout=1200) for p in [start(command, log) for log in logs]]
    texts = [log.read_text() for log in logs]
    assert results(runs) == undisturbed
    assert set(Counter(trained(runs)).values()) == {1}
    assert len(trained(runs)) == 8
    for code, text in zip(codes, texts, strict=True):  # done, or told what the other still trains
        assert code == (3 if "still being trained by another process" in text else 0), text


def test_two_reproductions_at_once_share_the_work_and_both_end_complete(
    tiny_data: Path, tmp_path: Path, undisturbed_protocol: dict[str, Any]
) -> None:
    logs = [tmp_path / "log1", tmp_path / "log2"]
    command = protocol(tiny_data, tmp_path)
    codes = [p.wait(timeout=1200) for p in [start(command, log) for log in logs]]
    assert codes == [0, 0], "\n".join(log.read_text() for log in logs)
    assert results(tmp_path / "runs") == undisturbed_protocol
    assert Counter(trained(tmp_path / "runs")).most_common(1)[0][1] == 1


def test_a_deadly_cell_costs_only_itself(tiny_data: Path, tmp_path: Path) -> None:
    """Its runs kill their process before an epoch is saved, and joblib's whole sweep with it."""
    done = finish(protocol(tiny_data, tmp_path, "deadly", "vanilla"))
    assert done.returncode == 1, done.stdout + done.stderr
    found = load_summaries(tmp_path / "runs")
    assert {r["strategy"] for r in found} == {"vanilla"}
    assert len(found) == 3
    failed = [
        line for line in done.stderr.splitlines() if line.startswith("failed: tiny sum deadly")
    ]
    assert len([line for line in failed if "killed 3 times" in line]) == 2
    assert len([line for line in failed if "no finished run" in line]) >= 1
    assert (tmp_path / "results" / "report.html").is_file()


def test_damaged_files_of_an_unfinished_run(
    tiny_data: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    runs = tmp_path / "runs"
    process = start(train(tiny_data, runs, *SWEEP), tmp_path / "log")
    wait_for(lambda: any(len(load_rows(p.parent)) >= 4 for p in epochs_saved(runs)))
    assert kill_group(process)
    (state,) = epochs_saved(runs)
    state.write_bytes(state.read_bytes()[:1000])
    rows = state.with_name("metrics.jsonl")
    rows.write_bytes(rows.read_bytes()[:-40])
    last = finish(train(tiny_data, runs, *SWEEP))
    assert last.returncode == 0, last.stderr
    assert f"warning: {state} is damaged" in last.stdout
    assert results(runs) == undisturbed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of its own, or changes its options; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        options = f"remount,{options}" if mounted else options
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("needs root to mount a small disk")
        mounted = True
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(tiny_data: Path, small_disk: Callable[[str], Path], tmp_path: Path) -> None:
    sweep = ("strategy=vanilla", "fusion=sum", "seed=range(0,10)", "epochs=3")
    assert finish(train(tiny_data, tmp_path / "reference", *sweep)).returncode == 0
    expected = results(tmp_path / "reference")
    runs = small_disk("size=100k") / "runs"  # a run takes 12 to 16 kB
    full = finish(train(tiny_data, runs, *sweep))
    assert full.returncode == 2
    assert "the disk is full: free some space; finished runs are kept" in full.stdout + full.stderr
    assert "Traceback" not in full.stdout + full.stderr
    finished = results(runs)
    assert 0 < len(finished) < len(expected)
    assert finished.items() <= expected.items()
    small_disk("size=40m")
    freed = finish(train(tiny_data, runs, *sweep))
    assert freed.returncode == 0, freed.stdout + freed.stderr
    assert f"{len(finished)} skipped" in freed.stdout
    assert results(runs) == expected
    assert not leftovers(runs)


def test_a_disk_without_room_for_another_file(
    tiny_data: Path, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    """Inodes run out while bytes are left."""
    sweep = ("strategy=vanilla", "fusion=sum", "seed=range(0,6)", "epochs=2")
    runs = small_disk("size=40m,nr_inodes=20") / "runs"
    full = finish(train(tiny_data, runs, *sweep))
    assert full.returncode == 2
    assert "the disk is full: free some space; finished runs are kept" in full.stdout + full.stderr
    assert "Traceback" not in full.stdout + full.stderr
    finished = results(runs)
    assert 0 < len(finished) < 6
    small_disk("nr_inodes=4000")
    freed = finish(train(tiny_data, runs, *sweep))
    assert freed.returncode == 0, freed.stdout + freed.stderr
    assert finished.items() <= results(runs).items()
    assert len(results(runs)) == 6


def test_a_disk_that_cannot_be_written(
    tiny_data: Path, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    runs = small_disk("size=1m,ro") / "runs"
    alone = finish(train(tiny_data, runs, *SWEEP))
    whole = finish(reproduce("run", tiny_data, runs, *PROTOCOL))
    for done in (alone, whole):
        assert done.returncode == 2
        assert "Traceback" not in done.stderr + done.stdout
        assert "ead-only file system" in done.stderr or "read-only" in done.stderr
    assert len(whole.stderr.splitlines()) == 1
