"""Sweeps: progress from journals, failures kept and counted, nothing lost without a word."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import finish, train, trained
from hydra.errors import HydraException
from omegaconf import OmegaConf
from rich.console import Console

from miles_repro import machine, sweep
from miles_repro.errors import UserError
from miles_repro.grid import Grid
from miles_repro.records import SUMMARY, RunRecord, load_summaries
from miles_repro.sweep import Launch


def follow(launch: Launch, folder: Path, **axes: str) -> sweep.Follower:
    config = {
        "runtime": {"threads": 1, "runs_dir": "results/runs"},
        "hydra": {
            "sweep": {"dir": str(folder)},
            "launcher": {},
        },
    }
    launch.begin(OmegaConf.create(config))
    launch.expect(Grid().runs(f"{key}={values}" for key, values in axes.items()))
    assert launch.follower is not None
    return launch.follower


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Launch:
    """One that leaves this process's signals and children alone."""
    for name in ("stop_on_signals", "lead"):
        monkeypatch.setattr(sweep, name, lambda: None)
    return Launch()


def entry(job: str, status: str) -> dict[str, Any]:
    return {"job": job, "status": status, "text": f"text of {job}", "folder": f"runs/{job}"}


def test_journals_of_several_processes_are_followed(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(launch, tmp_path, seed="range(0,4)")
    for i, status in enumerate(("done", "skipped", "failed", "busy")):
        path = tmp_path / f"journal.node{i % 2}.{i}.jsonl"
        path.write_text(json.dumps(entry(f"job{i}", status)) + "\n")
    launch.end()
    out, err = capsys.readouterr()
    assert "sweep of 4 runs" in out
    assert "1 done, 1 skipped, 1 busy, 1 failed" in out
    assert "error: job2: text of job2" in out
    assert "1 runs are still being trained by another process" in out
    assert err == "failed: job2: text of job2\n"
    assert launch.elsewhere == [Path("runs/job3")]


def test_runs_that_never_report_are_a_failure(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(launch, tmp_path, seed="range(0,3)")
    line = json.dumps(entry("job0", "done"))
    (tmp_path / "journal.a.1.jsonl").write_text(f'{line}\n{{"job": "cut sho')
    launch.end()
    assert "2 of 3 runs did not report" in capsys.readouterr().err
    assert len(launch.failures) == 1


def test_a_sweep_of_nothing_is_a_failure(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.run(lambda: (follow(launch, tmp_path, seed="range(0,0)"), launch.end())) == 2
    assert capsys.readouterr().err == (
        "failed: this sweep has no runs: is a range or list empty?\n"
    )


def test_lines_and_table_say_what_differs_between_runs(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs that share data set, fusion, strategy, trial and seed; one value is not finite."""
    follow(launch, tmp_path, **{"strategy.tau": "0.1,0.2", "seed": "0,1", "epochs": "5"})
    with (tmp_path / "journal.a.1.jsonl").open("w") as file:
        for tau in ("0.1", "0.2"):
            for seed in range(2):
                one = entry(f"tiny sum miles trial=0 seed={seed}", "done")
                one["overrides"] = [f"strategy.tau={tau}", f"seed={seed}", "epochs=5"]
                one |= {"cell": ["tiny", "sum", "miles"], "val": 0.5 + seed / 10, "test": None}
                one["notes"] = ["note [bold]"]
                file.write(json.dumps(one) + "\n")
    launch.end()
    out = capsys.readouterr().out
    assert "tiny sum miles trial=0 seed=1 strategy.tau=0.2: text" in out
    assert "epochs=5" not in out
    assert out.count("note [bold]\n") == 1
    rows = [line.split() for line in out.splitlines() if line.startswith("tiny ")]
    assert rows == [
        ["tiny", "sum", "miles", f"strategy.tau={tau}", "2", "55.0", "nan"] for tau in (0.1, 0.2)
    ]
    assert "next: python scripts/reproduce.py tables\n" in out
    assert max(map(len, sweep.table({("d" * 40,) * 4: [{"val": 1.0, "test": 1.0}] * 2}))) <= 80


def test_a_launcher_that_gives_up_ends_the_display(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        follow(launch, tmp_path, seed="0,1")
        raise RuntimeError("worker killed")

    assert launch.run(main) == 2
    assert launch.follower is None
    assert "error: the sweep broke off: RuntimeError: worker killed" in capsys.readouterr().err
    assert "2 of 2 runs did not report" in launch.failures[0]
    with pytest.raises(RuntimeError, match="a bug"):
        launch.run(lambda: (_ for _ in ()).throw(RuntimeError("a bug")).__next__())


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted, 1 of 2 runs are not finished: the same command"),
        (HydraException("no such thing"), 2, "error: no such thing"),
        (RecursionError("maximum depth"), 2, "error: configuration: a value refers to itself"),
    ],
)
def test_a_sweep_that_ends_early_says_one_line_and_restores_the_terminal(
    launch: Launch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    stopped = []

    def main() -> None:
        follower = follow(launch, tmp_path, seed="0,1")
        (tmp_path / "journal.a.1.jsonl").write_text(json.dumps(entry("job0", "done")) + "\n")
        follower.bar = SimpleNamespace(
            stop=lambda: stopped.append(1),
            console=SimpleNamespace(print=lambda *a, **k: None),
            update=lambda *a, **k: None,
            task_ids=[0],
        )
        raise error

    assert launch.run(main) == code
    assert stopped == [1]
    err = capsys.readouterr().err
    assert words in err
    assert len(err.splitlines()) == 1


def test_markup_in_a_message_is_shown_as_it_is(launch: Launch, tmp_path: Path) -> None:
    follower = follow(launch, tmp_path, seed="0,1")
    console = Console(file=io.StringIO(), width=40)
    follower.bar = SimpleNamespace(console=console, stop=lambda: None)
    follower.over.set()
    follower._say("[red]no[/red] [/oops] :smile: " + "long " * 20)
    assert console.file.getvalue() == "[red]no[/red] [/oops] :smile: " + "long " * 20 + "\n"


def test_two_launches_in_the_same_second_have_folders_of_their_own() -> None:
    code = (
        "import os, time; time.strftime = lambda *a: 'now'; os.getpid = lambda: 7\n"
        "import miles_repro.cli.train; print(os.environ['MILES_SWEEP'])"
    )
    names = [finish([sys.executable, "-c", code]).stdout for _ in range(2)]
    assert len(set(names)) == 2
    assert all(name.startswith("now-7-") for name in names)


@pytest.mark.parametrize(
    ("workers", "threads", "warns"),
    [(1, 1, False), (10**4, 1, True), (10**4, "two", False), ("abc", 10**4, False)],
)
def test_more_threads_than_cores_are_warned_of(
    workers: object, threads: object, warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no number is left to the runs."""
    machine.warn_about_threads(workers, threads)
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


def test_a_run_listed_twice_is_not_elsewhere_once_its_twin_is_done(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every fusion of a unimodal run is the same run."""
    follow(launch, tmp_path, fusion="concat,sum")
    run = tmp_path / "run"
    run.mkdir()
    (run / SUMMARY).write_text("{}")
    for status in ("done", "busy"):
        line = json.dumps(entry("job", status) | {"folder": str(run)})
        (tmp_path / f"journal.{status}.1.jsonl").write_text(line + "\n")
    launch.end()
    out, err = capsys.readouterr()
    assert "1 done, 1 skipped" in out
    assert err == ""
    assert not launch.elsewhere


def test_a_finished_run_that_another_process_repeats_is_elsewhere(
    launch: Launch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(launch, tmp_path, seed="1")
    record = RunRecord(tmp_path / "run")
    record.finish({})
    line = json.dumps(entry("job", "busy") | {"folder": str(record.folder)})
    (tmp_path / "journal.a.1.jsonl").write_text(line + "\n")
    with record.lease():
        launch.end()
    assert "1 busy" in capsys.readouterr().out
    assert launch.elsewhere == [record.folder]


def test_a_sweep_that_nobody_follows_does_not_pass() -> None:
    """Hydra only warns of a callback that raises."""
    with pytest.raises(UserError, match="nobody follows"):
        Launch().expect([["seed=1"]])
