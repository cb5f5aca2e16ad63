"""The protocol: which runs it holds, what is missing, and that every run gets an outcome."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import REPO, cpu_seconds_of_children, environment, finish, hydra, reproduce
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from record_factory import population, record

from miles_repro.errors import UserError
from miles_repro.protocol import launch, overview, stages
from miles_repro.protocol.launch import Rounds
from miles_repro.protocol.plan import make_plan, show
from miles_repro.protocol.stages import (
    UNIMODAL,
    Job,
    Protocol,
    Request,
    Stage,
    boxes,
    check_request,
)
from miles_repro.records import RunRecord, load_summaries
from miles_repro.run import run
from miles_repro.sweep import available_cores


@pytest.fixture
def request_tiny(tiny_data: Path, tmp_path: Path) -> Callable[..., Protocol]:
    def make(*strategies: str, **changes: object) -> Protocol:
        where = (f"runtime.data_dir={tiny_data}", f"runtime.runs_dir={tmp_path}")
        asked = {"budget": "smoke", "datasets": ("tiny",), "strategies": strategies} | changes
        return Protocol(Request(**asked, overrides=tuple(hydra(*where))))

    return make


def expand(grid: list[str]) -> Iterator[tuple[str, ...]]:
    """The jobs Hydra makes of a sweep's overrides."""
    parsed = OverridesParser.create().parse_overrides(grid)
    for batch in BasicSweeper.split_arguments(parsed, None):
        yield from map(tuple, batch)


def choices(job: Job) -> frozenset[str]:
    trial = (f"trial={job.trial}", f"seed={job.seed}")
    return frozenset([*job.overrides, *trial])


def in_process(protocol: Protocol) -> Callable[[list[str]], None]:
    """A launcher without processes: runs every job of the sweep here."""

    def start(overrides: list[str]) -> None:
        own = [o for o in overrides if o not in protocol.request.common]
        for chosen in expand(own):
            values = dict(o.split("=", 1) for o in chosen)
            trial, seed = values.pop("trial"), int(values.pop("seed"))
            fixed = [(k, v) for k, v in values.items() if "." in k]
            job = Job(
                values["dataset"],
                values["strategy"],
                values["fusion"],
                trial if trial == "best" else int(trial),
                seed,
                fixed[0] if fixed else ("", ""),
            )
            run(protocol.config(job), "test")

    return start


def jobs_of(protocol: Protocol) -> dict[str, tuple[Job, ...]]:
    return {stage.name: stage.jobs for stage in protocol.stages("tiny")}


# What belongs to the protocol


def test_stages_have_the_papers_size(request_tiny: Callable[..., Protocol]) -> None:
    """Paper sec. IV-B: 80 trials of 9 methods x 2 fusions, and of 2 unimodal models, a data set."""
    rows = ("vanilla", "mslr_k", "mslr_s", "mslr_d", "ogm", "ogm_ge", "mses", "gblend", "miles")
    found = jobs_of(request_tiny(*UNIMODAL, *rows, budget="paper"))
    sizes = {name: len(jobs) for name, jobs in found.items()}
    assert sizes == {
        "unimodal search": 2 * 80,
        "search": 9 * 2 * 80,
        "winners over seeds": (9 * 2 + 2) * 5,
        "ablation of tau": 5 * 2 * 5,
        "ablation of mu": 7 * 2 * 5,
        "training metrics, search": 2 * 80,
        "training metrics, winners": 2 * 5,
    }
    assert all(len(set(jobs)) == len(jobs) for jobs in found.values())
    assert {job.fusion for job in found["unimodal search"]} == {"concat"}
    assert {job.trial for job in found["search"]} == set(range(80))
    assert {job.trial for job in found["winners over seeds"]} == {"best"}


def test_ablations_only_where_miles_is_asked_for(request_tiny: Callable[..., Protocol]) -> None:
    assert len(jobs_of(request_tiny("vanilla"))) == 3
    assert len(jobs_of(request_tiny("miles", ablations=False))) == 3


job_lists = st.sets(
    st.builds(
        Job,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["x", "y", "z"]),
        st.sampled_from(["concat", "sum"]),
        st.integers(0, 3),
        st.integers(0, 1),
    ),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(job_lists)
def test_sweeps_cover_the_missing_runs_and_nothing_else(jobs: set[Job]) -> None:
    started = [frozenset(job) for grid in boxes(jobs) for job in expand(grid)]
    assert len(started) == len(set(started))
    assert set(started) == {choices(job) for job in jobs}


def test_a_full_search_is_one_sweep_and_an_interrupted_one_few() -> None:
    every = [
        Job("d", s, f, t, 0)
        for t, f, s in itertools.product(range(80), ("concat", "sum"), ("x", "y", "z"))
    ]
    assert len(boxes(every)) == 1
    assert len(boxes(every[100:])) <= 3
    fixed = [Job("d", "miles", "sum", "best", 0, ("strategy.tau", v)) for v in ("0.1", "0.2")]
    assert [o for o in boxes(fixed)[0] if "tau" in o] == ["strategy.tau=0.1,0.2"]


def test_unknown_choices_are_refused(request_tiny: Callable[..., Protocol]) -> None:
    for changes in ({"budget": "huge"}, {"datasets": ("nothing",)}, {"fusions": ("product",)}):
        with pytest.raises(UserError, match=r"Could not find '.*/(huge|nothing|product)'"):
            check_request(request_tiny("miles", **changes).request)
    with pytest.raises(UserError, match="magic"):
        check_request(request_tiny("magic").request)
    for override in ("seed=[0,1]", "+trial=3", "strategy=ogm"):
        with pytest.raises(UserError, match="the protocol chooses every run's"):
            check_request(Request(overrides=(override,)))


# What is missing, and the rounds that finish it


def test_protocol_to_the_end_and_nothing_twice(
    request_tiny: Callable[..., Protocol], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "TAUS", ("0.5", "0.0"))
    monkeypatch.setattr(stages, "MUS", ("1.0", "0.5"))
    protocol = request_tiny(*UNIMODAL, "mslr_k", "miles", fusions=("sum",))
    start = in_process(protocol)
    for stage in protocol.stages("tiny"):
        protocol.forget()
        assert not Rounds(protocol, stage, start).finish(), stage.name
        assert not protocol.missing(stage.jobs)
    found = load_summaries(tmp_path)
    whole = jobs_of(protocol)
    # The winners' seed 0 is a run of the search; ablations fix one value and keep the rest.
    assert len(found) == sum(map(len, whole.values())) - 4 - 1
    tau = [r for r in found if r["pinned"] == ["strategy.tau"]]
    assert sorted({r["config"]["strategy"]["tau"] for r in tau}) == [0.0, 0.5]
    assert len({r["trial"] for r in tau}) == 1
    assert {r["config"]["optimizer"]["lr"] for r in tau} == {
        r["config"]["optimizer"]["lr"]
        for r in found
        if r["strategy"] == "miles" and r["trial"] == tau[0]["trial"]
    }
    rates = {
        json.dumps(r["config"]["strategy"]["rates"]) for r in found if r["strategy"] == "mslr_k"
    }
    assert len(rates) == 1

    def unused(overrides: list[str]) -> None:
        raise AssertionError(f"started again: {overrides}")

    for stage in protocol.stages("tiny"):
        assert not Rounds(protocol, stage, unused).finish()
    plan = make_plan(protocol, ["tiny"], measure=True)
    assert plan.missing == 0


def test_winner_on_training_metrics_is_its_own(request_tiny: Callable[..., Protocol]) -> None:
    """Table VI re-tunes: trial=best with source=train looks at runs with source=train only."""
    protocol = request_tiny("miles", fusions=("sum",))
    best = Job("tiny", "miles", "sum", "best", 0, ("strategy.source", "train"))
    run(protocol.config(Job("tiny", "miles", "sum", 0, 0)), "test")
    with pytest.raises(UserError, match=r"strategy\.source=train"):
        protocol.config(best)
    run(protocol.config(Job("tiny", "miles", "sum", 1, 0, best.fixed)), "test")
    assert protocol.config(best).trial == 1


def stage_of(*jobs: Job) -> Stage:
    return Stage("test", jobs)


VANILLA = [Job("tiny", "vanilla", "sum", 0, seed) for seed in range(6)]


def test_a_failing_run_is_tried_once_and_named(
    request_tiny: Callable[..., Protocol], tmp_path: Path
) -> None:
    protocol = request_tiny("vanilla")
    starts = []

    def start(overrides: list[str]) -> None:
        starts.append(overrides)
        for job in VANILLA[:2]:
            record = RunRecord(protocol.config(job).run_dir)
            with record.lease():
                record.write_config({})
                record.fail("Traceback\nValueError: no good")

    stage = stage_of(*VANILLA[:2])
    for attempt in (1, 2):  # the next command tries again
        failed = Rounds(protocol, stage, start).finish()
        assert len(starts) == attempt
        folder = protocol.folder(VANILLA[0])
        assert failed[VANILLA[0]] == f"ValueError: no good (log: {folder / 'error.txt'})"
        assert len(failed) == 2


def test_a_killed_run_does_not_keep_the_others_from_ending(
    request_tiny: Callable[..., Protocol],
) -> None:
    """Job 0 kills every sweep it is in, before its first epoch is saved."""
    protocol = request_tiny("vanilla")
    sweeps = []

    def start(overrides: list[str]) -> None:
        seeds = [int(dict(o.split("=", 1) for o in job)["seed"]) for job in expand(overrides[:5])]
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
    request_tiny: Callable[..., Protocol],
) -> None:
    protocol = request_tiny("vanilla")
    folder = protocol.config(VANILLA[0]).run_dir
    tries = []

    def start(overrides: list[str]) -> None:
        tries.append(1)
        record = RunRecord(folder)
        record.write_config({})
        if len(tries) < 6:
            (folder / "last.pt").write_text(str(tries))
            time.sleep(0.01)
        else:
            record.finish({"status": "done"})

    assert not Rounds(protocol, stage_of(VANILLA[0]), start).finish()
    assert len(tries) == 6


def test_rounds_end_when_nothing_starts_and_when_everything_is_killed(
    request_tiny: Callable[..., Protocol],
) -> None:
    protocol = request_tiny("vanilla")
    starts = []
    failed = Rounds(protocol, stage_of(*VANILLA), starts.append).finish()
    assert len(starts) == launch.IDLE_ROUNDS
    assert set(failed.values()) == {"the launcher did not start it"}

    def kill(overrides: list[str]) -> None:
        starts.append(overrides)
        for job in expand(overrides[:5]):
            seed = int(dict(o.split("=", 1) for o in job)["seed"])
            RunRecord(protocol.config(VANILLA[seed]).run_dir).write_config({"n": len(starts)})

    starts.clear()
    failed = Rounds(protocol, stage_of(*VANILLA), kill).finish()
    assert len(failed) == len(VANILLA)
    assert len(starts) == 1 + launch.HOPELESS * (launch.TRIES - 1)


def test_a_run_in_another_process_is_waited_for(
    request_tiny: Callable[..., Protocol], capsys: pytest.CaptureFixture[str]
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

    def start(overrides: list[str]) -> None:
        started.append(overrides)
        in_process(protocol)(overrides)

    def release() -> None:
        time.sleep(0.5)
        run_dir = protocol.config(VANILLA[0]).run_dir
        RunRecord(run_dir).finish({"status": "done"})  # as its process would have
        for other in others:
            other.kill()

    helper = threading.Thread(target=release)
    helper.start()
    assert not Rounds(protocol, stage, start, poll_s=0.05).finish()
    helper.join()
    assert "waiting for 2 runs in other processes" in capsys.readouterr().out
    assert [o for o in started[0] if o.startswith("seed=")] == ["seed=1"]
    assert len(started) == 1


def test_plan_measures_and_refuses(
    request_tiny: Callable[..., Protocol], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    three = {"datasets": ("tiny_three",), "fusions": ("sum", "film")}  # FiLM takes two modalities
    protocol = request_tiny("vanilla", "mimo", "mslr_k", **three)
    plan = make_plan(protocol, ["tiny_three"], measure=True)
    show(plan, {"luma": "python scripts/prepare_data.py dataset=luma raw=<folder>"}, 2, 1.5)
    out = capsys.readouterr().out
    assert sorted(plan.refused) == [
        ("tiny_three", "film", s) for s in ("mimo", "mslr_k", "vanilla")
    ]
    assert "left out: tiny_three film vanilla: fusion film needs 2 modalities" in out
    lines = {line.stage: line for line in plan.lines}
    cells = 6 - len(plan.refused)
    assert len(lines["search"].missing) == 2 * cells
    assert len(lines["winners over seeds"].missing) == cells  # seed 0 is the search's
    assert plan.seconds is not None
    assert 0 < plan.seconds < 600
    assert f"{3 * cells} runs to do: about" in out
    assert "at 1.5 an hour" in out
    assert "not prepared: luma: python scripts/prepare_data.py dataset=luma raw=<folder>" in out
    assert not list(tmp_path.iterdir())  # nothing was started


# The command


def status_in_a_new_process(runs: Path) -> tuple[float, str]:
    code = (
        "import sys, runpy; sys.argv = ['reproduce.py', 'status', '--runs-dir', sys.argv[1]]\n"
        "try: runpy.run_path('scripts/reproduce.py', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'pandas', 'numpy', 'wandb', 'scipy'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    began = cpu_seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-c", code, str(runs)],
        cwd=REPO, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cpu_seconds_of_children() - began, done.stdout


def test_status_of_6000_runs_is_quick_and_light(tmp_path: Path) -> None:
    summary = record()
    text = json.dumps(summary, indent=1)
    config = json.dumps({"budget": {"name": "mini"}})
    for i in range(6000):
        folder = tmp_path / "tiny" / ("concat", "sum")[i % 2] / f"strategy{i % 15}" / f"{i:012x}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config)
        (folder / ".lock").touch()
        if i % 100 == 1:
            (folder / "error.txt").write_text("Traceback\nValueError: bad luck\n")
        elif i % 100 != 2:
            (folder / "summary.json").write_text(text)
    with RunRecord(tmp_path / "tiny" / "concat" / "strategy2" / f"{2:012x}").lease():
        seconds, out = status_in_a_new_process(tmp_path)
    assert seconds < 5, f"{seconds:.1f} s"
    assert out.splitlines()[-1] == "5880 done, 1 running, 60 failed, 59 unfinished"
    log = tmp_path / "tiny" / "sum" / "strategy1" / f"{1:012x}" / "error.txt"
    assert f"failed: tiny/sum/strategy1/{1:012x}: ValueError: bad luck ({log})" in out
    assert len(out.splitlines()) < 60 + 60


def test_status_can_be_of_one_budget(tmp_path: Path) -> None:
    for budget, count in (("mini", 2), ("smoke", 1)):
        for seed in range(count):
            one = record(budget=budget, seed=seed)
            names = [one[key] for key in ("dataset", "fusion", "strategy", "run_id")]
            RunRecord(tmp_path.joinpath(*names)).finish(one)
    assert overview.look(tmp_path).total["done"] == 3
    assert overview.look(tmp_path, "mini").total["done"] == 2


@pytest.mark.slow
def test_tables_of_6000_records_are_quick(tmp_path: Path) -> None:
    """The tables alone; figures take as long for few records as for many."""
    found = population(
        datasets=("cremad", "smnist", "luma", "mmimdb"), trials=48, seeds=range(3), budget="paper"
    )
    assert len(found) >= 6000
    for one in found:
        names = [one[key] for key in ("dataset", "fusion", "strategy", "run_id")]
        folder = tmp_path / "runs" / Path(*names)
        folder.mkdir(parents=True)
        (folder / "summary.json").write_text(json.dumps(one, indent=1))
    script = [sys.executable, "scripts/reproduce.py", "tables", "--tables-only"]
    places = ["--runs-dir", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    began = cpu_seconds_of_children()
    done = finish([*script, *places])
    seconds = cpu_seconds_of_children() - began
    assert done.returncode == 0, done.stderr
    assert f"{len(found)} runs ->" in done.stdout
    assert (tmp_path / "results" / "tables" / "table2.md").is_file()
    assert seconds < 10, f"{seconds:.1f} s"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--budget", "gigantic"], "gigantic"),
        (["plan", "--datasets", "smnist_mini", "--data-dir", "/nowhere"], "dataset=smnist_mini"),
        (["status", "--runs-dir", "/nowhere/at/all"], "/nowhere/at/all"),
        (["tables", "--runs-dir", "/nowhere/at/all"], "no finished run"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str) -> None:
    done = finish([sys.executable, "scripts/reproduce.py", *arguments])
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_command_from_nothing_to_tables(tiny_data: Path, tmp_path: Path) -> None:
    """plan, run, run again; a data set that is not prepared is listed and the rest goes on."""
    arguments = ["--strategies", "vanilla,miles", "--fusions", "concat", "--no-ablations"]
    runs, results = tmp_path / "runs", tmp_path / "results"
    planned = finish(reproduce("plan", tiny_data, runs, *arguments))
    assert planned.returncode == 0, planned.stderr
    assert "6 runs to do: about" in planned.stdout
    assert not runs.exists()
    command = reproduce("run", tiny_data, runs, *arguments, "--results", str(results))
    first = finish(command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert len(load_summaries(runs)) == 6
    assert (results / "report.html").is_file()
    index = command.index("tiny")
    again = finish([*command[:index], "tiny,smnist_mini", *command[index + 1 :]])
    assert "sweep of" not in again.stdout
    assert "0 runs to do" in again.stdout
    assert "not prepared: smnist_mini: python scripts/prepare_data.py" in again.stdout
    assert again.returncode == 1


def test_local_workers_times_threads_are_the_cores() -> None:
    cores = available_cores()
    pairs = [(1, cores), (cores, 1), (10 * cores, 1)]
    code = f"""
import miles_repro.cli.train
from hydra import compose, initialize_config_dir
with initialize_config_dir({str(REPO / "conf")!r}, version_base="1.3"):
    for threads, workers in {pairs}:
        choice = ["hydra/launcher=local", f"runtime.threads={{threads}}"]
        config = compose("config", choice, return_hydra_config=True)
        assert config.hydra.launcher.n_jobs == workers, config.hydra.launcher
"""
    done = finish([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
