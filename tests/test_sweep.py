"""Sweeps: progress from journals, failures kept and counted, nothing lost without a word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import finish, train, trained
from omegaconf import OmegaConf
from support import settings

from miles_repro import sweep
from miles_repro.records import RunRecord, load_summaries


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    sweep.failures.clear()
    sweep.elsewhere.clear()
    sweep._following.clear()


def follow(folder: Path, jobs: int) -> sweep.Follower:
    config = {
        "runtime": {"threads": 1},
        "hydra": {
            "sweep": {"dir": str(folder)},
            "launcher": {},
            "sweeper": {"params": {"seed": f"range(0,{jobs})"}},
            "overrides": {"task": []},
        },
    }
    return sweep.Follower(OmegaConf.create(config))


def entry(job: str, status: str) -> dict[str, Any]:
    return {"job": job, "status": status, "text": f"text of {job}"}


def test_journals_of_several_processes_are_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follower = follow(tmp_path, 4)
    for i, status in enumerate(("done", "skipped", "failed", "busy")):
        path = tmp_path / f"journal.node{i % 2}.{i}.jsonl"
        path.write_text(json.dumps(entry(f"job{i}", status)) + "\n")
    follower.end()
    out, err = capsys.readouterr()
    assert "sweep of 4 runs" in out
    assert "1 done, 1 skipped, 1 busy, 1 failed" in out
    assert "error: job2: text of job2" in out
    assert "1 runs are still being trained by another process" in out
    assert err == "failed: job2: text of job2\n"
    assert sweep.elsewhere == ["job3: text of job3"]


def test_runs_that_never_report_are_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follower = follow(tmp_path, 3)
    line = json.dumps(entry("job0", "done"))
    (tmp_path / "journal.a.1.jsonl").write_text(f'{line}\n{{"job": "cut sho')
    follower.end()
    assert "2 of 3 runs did not report" in capsys.readouterr().err
    assert len(sweep.failures) == 1


def test_a_launcher_that_gives_up_ends_the_display(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not sweep.break_off("nothing was on")
    sweep._following.append(follow(tmp_path, 2))
    assert sweep.break_off("TerminatedWorkerError: killed")
    assert "error: the sweep broke off: TerminatedWorkerError: killed" in capsys.readouterr().err
    assert "2 of 2 runs did not report" in sweep.failures[0]


def test_the_log_of_a_failure_is_kept_where_its_line_says(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(tiny_data, tmp_path)
    assert sweep._keep([config], "Traceback\nValueError: x") == ""  # no folder: never begun
    assert "ValueError: x" in capsys.readouterr().err
    RunRecord(config.run_dir)
    assert (
        sweep._keep([config], "Traceback\nValueError: x") == f" (log: {config.run_dir}/error.txt)"
    )
    assert (config.run_dir / "error.txt").read_text() == "Traceback\nValueError: x\n"


@pytest.mark.parametrize(
    ("params", "task", "count"),
    [
        ({}, ["seed=0,1", "trial=range(0,3)"], 6),
        ({"seed": "0,1,2", "strategy": "miles,ogm"}, ["seed=5"], 2),
        ({}, ["seed=1"], 1),
    ],
)
def test_jobs_are_counted_as_hydra_makes_them(
    params: dict[str, str], task: list[str], count: int
) -> None:
    node = {"hydra": {"sweeper": {"params": params}, "overrides": {"task": task}}}
    assert sweep.count_jobs(OmegaConf.create(node)) == count


@pytest.mark.parametrize(("workers", "threads", "warns"), [(1, 1, False), (10**4, 1, True)])
def test_more_threads_than_cores_are_warned_of(
    workers: int, threads: int, warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    node = {"hydra": {"launcher": {"n_jobs": workers}}, "runtime": {"threads": threads}}
    sweep.warn_about_threads(OmegaConf.create(node))
    assert ("slow each other down" in capsys.readouterr().err) == warns


def test_a_failing_cell_is_told_as_it_happens_and_at_the_end(
    tiny_data: Path, tmp_path: Path
) -> None:
    """One that fails while training, one that is refused; the others train, the code says so."""
    command = train(tiny_data, tmp_path, "strategy=broken,vanilla,mslr_k", "seed=0,1")
    done = finish(command)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(load_summaries(tmp_path)) == 2
    assert sorted(trained(tmp_path)) == [
        f"tiny concat vanilla trial=0 seed={seed}" for seed in (0, 1)
    ]
    logs = sorted(tmp_path.glob("tiny/concat/broken/*/error.txt"))
    assert len(logs) == 2
    for log in logs:
        line = f"RuntimeError: broken on purpose (log: {log})"
        assert line in done.stdout
        assert line in done.stderr
        assert "Traceback" in log.read_text()
    assert "2 done, 4 failed" in done.stdout
    refused = [line for line in done.stderr.splitlines() if "mslr_k" in line]
    assert len(refused) == 2
    assert all("no finished run" in line for line in refused)
    assert "Traceback" not in done.stdout + done.stderr
