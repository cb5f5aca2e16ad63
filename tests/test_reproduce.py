"""The command: plan, run, status and tables as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import REPO, cpu_seconds_of_children, environment, finish, hydra, reproduce
from record_factory import population, record, record_of

from miles_repro.cli.reproduce import parser
from miles_repro.machine import cores
from miles_repro.protocol import overview
from miles_repro.records import RunRecord, load_summaries


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
    config = json.dumps({"budget": {"name": "mini"}})
    for i in range(6000):
        folder = tmp_path / "tiny" / ("concat", "sum")[i % 2] / f"strategy{i % 15}" / f"{i:012x}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config)
        (folder / ".lock").touch()
        if i % 100 == 1:
            (folder / "error.txt").write_text("Traceback\nValueError: bad luck\n")
        elif i % 100 != 2:
            (folder / "summary.json").write_text(json.dumps(record_of(folder), indent=1))
    with RunRecord(tmp_path / "tiny" / "concat" / "strategy2" / f"{2:012x}").lease():
        seconds, out = status_in_a_new_process(tmp_path)
    assert seconds < 5, f"{seconds:.1f} s"
    assert out.splitlines()[-1] == "5880 done, 0 diverged, 1 running, 60 failed, 59 unfinished"
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
        (["run", "--datasets", "smnist_mini", "--data-dir", "/nowhere"], "dataset=smnist_mini"),
        (["plan", "--strategies", "magic"], "'magic': neither a group"),
        (["plan", "--until-decided", "--max-seeds", "2"], "every row gets 4 seeds first"),
        (
            ["plan", "--until-decided", "--reference", "ensembles"],
            "--reference ensembles: give one",
        ),
        (["plan", "--runs-dir", "a${seed}"], "a${seed}: ${..} in a folder's name"),
        (["plan", "--until-decided", "--max-seeds", "100000"], "give at most 10,000"),
        (["plan", "--until-decided", "--eps", "0"], "--eps: 0: give a number above 0"),
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


@pytest.mark.parametrize(
    "option",
    [
        *(["--workers", "-3"], ["--workers", "0"], ["--workers", "two"], ["--price", "nan"]),
        *(["--hours", "inf"], ["--tflops", "0"], ["--eps", "-1"], ["--launcher", "magic"]),
    ],
)
def test_options_out_of_range(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parser().parse_args(["plan", *option])
    assert error.value.code == 2
    assert f"argument {option[0]}" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_the_command_from_nothing_to_tables(tiny_data: Path, tmp_path: Path) -> None:
    """plan, run, run again; a data set that is not prepared is listed and the rest goes on."""
    arguments = ["--strategies", "vanilla,miles", "--fusions", "concat", "--no-ablations"]
    runs, results = tmp_path / "runs", tmp_path / "results"
    planned = finish(reproduce("plan", tiny_data, runs, *arguments))
    assert planned.returncode == 0, planned.stderr
    assert "8 runs to do: about" in planned.stdout
    assert not runs.exists()
    command = reproduce("run", tiny_data, runs, *arguments, "--results", str(results))
    first = finish(command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert len(load_summaries(runs)) == 8
    assert (results / "report.html").is_file()
    index = command.index("tiny")
    again = finish([*command[:index], "tiny,smnist_mini", *command[index + 1 :]])
    assert "sweep of" not in again.stdout
    assert "0 runs to do, 8 more once prepared" in again.stdout
    assert "not prepared: smnist_mini: python scripts/prepare_data.py" in again.stdout
    assert again.returncode == 1


def test_plan_counts_without_any_prepared_data() -> None:
    """The paper's own size, four data sets: 9 rows x 2 fusions and 2 unimodal models, 80 trials."""
    datasets = ["--datasets", "cremad,smnist,luma,mmimdb", "--data-dir", "/nowhere"]
    script = [sys.executable, "scripts/reproduce.py", "plan", "--paper-size"]
    done = finish([*script, *datasets])
    assert done.returncode == 0, done.stderr
    search = 4 * (9 * 2 + 2) * 80
    winners = 4 * (9 * 2 + 2)
    ablations = (5 + 7) * 2 + 2 * 80 + 2  # on LUMA alone
    total = next(line for line in done.stdout.splitlines() if line.startswith("total"))
    every = search + winners + ablations
    assert total.split()[1:] == [str(every), "0", str(every)]
    assert "not prepared: mmimdb: python scripts/prepare_data.py dataset=mmimdb" in done.stdout
    assert done.stdout.endswith(f"0 runs to do, {every} more once prepared\n")
    assert all(len(line) <= 80 for line in done.stdout.split("total")[0].splitlines())


def test_status_shows_trials(tmp_path: Path) -> None:
    for trial, (lr, tau, val) in enumerate([(1e-3, 0.2, 0.9), (2e-3, 0.1, 0.95), (3e-3, 0.1, 0.8)]):
        one = record(trial=trial, lr=lr, val=val, strategy_values={"tau": tau})
        names = [one[key] for key in ("dataset", "fusion", "strategy", "run_id")]
        RunRecord(tmp_path.joinpath(*names)).finish(one)
    script = [sys.executable, "scripts/reproduce.py", "status", "--trials"]
    done = finish([*script, "--runs-dir", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[1] == "smnist_mini mini concat miles"
    assert [line.split()[0] for line in lines[2:5]] == ["0", "1*", "2"]
    assert lines[3].startswith("1* 95.00")
    assert lines[3].endswith("lr 0.002 tau 0.1")


@pytest.mark.slow
def test_the_command_until_decided(tiny_data: Path, tmp_path: Path) -> None:
    """Rounds of real runs up to the last seed allowed; again, nothing is left to do."""
    options = ["--strategies", "vanilla", "--fusions", "sum", "--until-decided"]
    runs, results = tmp_path / "runs", tmp_path / "results"
    options += ["--max-seeds", "4", "--no-estimate", "--results", str(results)]
    command = reproduce("run", tiny_data, runs, *options)
    first = finish(command)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "tiny, round 1: 2 runs to do" in first.stdout
    assert "after 2 rounds of more seeds" in first.stdout
    seeds = [(r["strategy"], r["seed"]) for r in load_summaries(runs) if r["seed"]]
    assert sorted(seeds) == [(s, k) for s in ("vanilla", "vanilla_aux") for k in (1, 2, 3, 4)]
    again = finish(command)
    assert again.returncode == 0
    assert "round 1:" not in again.stdout


def test_local_workers_times_threads_are_the_cores() -> None:
    here = cores()
    pairs = [(1, here), (here, 1), (10 * here, 1)]
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


def test_failures_are_listed_where_nothing_finished(tiny_data: Path, tmp_path: Path) -> None:
    """And a folder's name may have what Hydra's grammar has a meaning for."""
    runs = tmp_path / "runs, (mine)"
    command = [
        *("run", "--datasets", "tiny", "--fusions", "concat", "--strategies", "vanilla"),
        *("--budget", "smoke", "--no-ablations", "--no-estimate", "--launcher", "in_process"),
        *("--runs-dir", str(runs), "--results", str(tmp_path / "results")),
        *hydra(f"runtime.data_dir={tiny_data}", "runtime.device=nothing"),
    ]
    done = finish([sys.executable, "scripts/reproduce.py", *command])
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert sum(line.startswith("failed: tiny concat vanilla trial=0 seed=0: ") for line in lines)
    assert lines[-1].startswith(f"error: no finished run in {runs}")
