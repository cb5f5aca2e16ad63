"""Every run of a stage gets an outcome: done, failed or given up, whatever is killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from commands import REPO
from protocols import Make, in_process, stage_of
from record_factory import record_of

from miles_repro.protocol import launch
from miles_repro.protocol.jobs import Job
from miles_repro.protocol.launch import Rounds
from miles_repro.records import RunRecord
from miles_repro.run import run

VANILLA = [Job("tiny", "vanilla", "sum", 0, seed) for seed in range(6)]


def test_a_failing_run_is_tried_once_and_named(request_tiny: Make, tmp_path: Path) -> None:
    protocol = request_tiny("vanilla")
    starts = []

    def start(jobs: Sequence[Job]) -> None:
        starts.append(jobs)
        for job in VANILLA[:2]:
            record = RunRecord(protocol.config(job).run_dir)
            with record.lease():
                record.write_config({})
                record.fail("Traceback\nValueError: no good")

    stage = stage_of(*VANILLA[:2])
    for attempt in (1, 2):  # the next command tries again
        failed = Rounds(protocol, stage, start).finish()
        assert len(starts) == attempt
        folder = protocol.config(VANILLA[0]).run_dir
        assert failed[VANILLA[0]] == f"ValueError: no good (log: {folder / 'error.txt'})"
        assert len(failed) == 2


def test_a_killed_run_does_not_keep_the_others_from_ending(
    request_tiny: Make,
) -> None:
    """Job 0 kills every sweep it is in, before its first epoch is saved."""
    protocol = request_tiny("vanilla")
    sweeps = []

    def start(jobs: Sequence[Job]) -> None:
        seeds = [job.seed for job in jobs]
        sweeps.append(seeds)
        for seed in seeds:
            config = protocol.config(VANILLA[seed])
            RunRecord(config.run_dir).write_config({"try": len(sweeps)})
            if seed == 0:
                return
            run(config, "test")

    failed = Rounds(protocol, stage_of(*VANILLA[:4]), start).finish()
    assert list(failed) == VANILLA[:1]
    assert "killed 3 times" in failed[VANILLA[0]]
    assert sweeps == [[0, 1, 2, 3], [1, 2, 3], [0], [0]]


def test_a_run_that_saves_epochs_may_be_killed_often(
    request_tiny: Make,
) -> None:
    protocol = request_tiny("vanilla")
    folder = protocol.config(VANILLA[0]).run_dir
    tries = []

    def start(jobs: Sequence[Job]) -> None:
        tries.append(1)
        record = RunRecord(folder)
        record.write_config({})
        if len(tries) < 6:
            (folder / "last.pt").write_text(str(tries))
            time.sleep(0.01)
        else:
            record.finish(record_of(folder))

    assert not Rounds(protocol, stage_of(VANILLA[0]), start).finish()
    assert len(tries) == 6


def test_rounds_end_when_nothing_starts_and_when_everything_is_killed(
    request_tiny: Make,
) -> None:
    protocol = request_tiny("vanilla")
    starts = []
    failed = Rounds(protocol, stage_of(*VANILLA), starts.append).finish()
    assert len(starts) == launch.IDLE_ROUNDS
    assert set(failed.values()) == {"the launcher did not start it"}

    def kill(jobs: Sequence[Job]) -> None:
        starts.append(jobs)
        for job in jobs:
            RunRecord(protocol.config(job).run_dir).write_config({"n": len(starts)})

    starts.clear()
    failed = Rounds(protocol, stage_of(*VANILLA), kill).finish()
    assert len(failed) == len(VANILLA)
    assert len(starts) == 1 + launch.HOPELESS * (launch.TRIES - 1)


def test_a_run_in_another_process_is_waited_for(
    request_tiny: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends there, or its process dies and the run is taken over."""
    protocol = request_tiny("vanilla")
    stage = stage_of(*VANILLA[:2])
    code = (
        "import sys; from pathlib import Path; from miles_repro.records import RunRecord\n"
        "with RunRecord(Path(sys.argv[1])).lease(): print(flush=True); sys.stdin.read()"
    )
    others = []
    for job in stage.jobs:
        command = [sys.executable, "-c", code, str(protocol.config(job).run_dir)]
        other = subprocess.Popen(command, cwd=REPO, stdin=-1, stdout=-1)
        assert other.stdout is not None
        other.stdout.readline()
        others.append(other)
    started = []

    def start(jobs: Sequence[Job]) -> None:
        started.append(jobs)
        in_process(protocol)(jobs)

    def release() -> None:
        time.sleep(0.5)
        run_dir = protocol.config(VANILLA[0]).run_dir
        RunRecord(run_dir).finish(record_of(run_dir))  # as its process would have
        for other in others:
            other.kill()

    helper = threading.Thread(target=release)
    helper.start()
    assert not Rounds(protocol, stage, start, poll_s=0.05).finish()
    helper.join()
    assert "waiting for 2 runs in other processes" in capsys.readouterr().out
    assert [job.seed for job in started[0]] == [1]
    assert len(started) == 1
