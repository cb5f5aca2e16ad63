"""What a user gets who has no checkout: the wheel, the source distribution, a bare scheduler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from commands import REPO

import miles_repro
from miles_repro import places

SITE = sysconfig.get_paths()["purelib"]


def call(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs it where only the wheel can be meant by miles_repro."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MILES_DATA")}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def ok(*command: str | Path, cwd: Path, **variables: str) -> str:
    done = call(*command, cwd=cwd, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution, built from a copy without leftovers of other builds."""
    folder = tmp_path_factory.mktemp("source")
    leave = shutil.ignore_patterns(
        ".*", "build", "*.egg-info", "data", "runs", "__pycache__", "wandb"
    )
    shutil.copytree(
        REPO,
        folder / "tree",
        ignore=lambda at, found: leave(at, found) if Path(at) == REPO else {"__pycache__", "runs"},
    )
    shutil.copytree(REPO / ".ci", folder / "tree" / ".ci")
    build = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    name = ok(sys.executable, "-c", build, cwd=folder / "tree").splitlines()[-1]
    with tarfile.open(folder / name) as archive:
        archive.extractall(folder, filter="data")
    return folder / name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def python(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and sees this one's packages."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "-q", "--disable-pip-version-check")
    ok(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    ok(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    interpreter = folder / "venv" / "bin" / "python"
    ok(*pip, "--python", interpreter, "install", "--no-deps", wheel, cwd=folder)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "outer.pth").write_text(SITE)
    return interpreter


@pytest.mark.slow
def test_the_wheel_runs_the_suite_in_an_empty_folder(python: Path, tmp_path: Path) -> None:
    where = "from miles_repro import places; print(places.CHECKOUT, places.PACKAGE)"
    assert ok(python, "-c", where, cwd=tmp_path).startswith(f"None {python.parents[1]}")
    commands = python.parent
    ok(commands / "miles-prepare", "dataset=smnist_mini", cwd=tmp_path)
    sweep = ("-m", "strategy=miles,vanilla_aux", "seed=0,1", "budget=smoke")
    ok(commands / "miles-train", *sweep, cwd=tmp_path, WANDB_MODE="offline")
    records = list((tmp_path / "results" / "runs").rglob("summary.json"))
    assert len(records) == 4
    assert all(json.loads(path.read_text())["test"] for path in records)
    one_more = ("run", "--budget", "smoke", "--strategies", "vanilla", "--fusions", "concat")
    options = ("--no-ablations", "--no-estimate", "tracker=none")
    ok(commands / "miles-reproduce", *one_more, *options, cwd=tmp_path)
    report = tmp_path / "results" / "local" / "report.html"
    assert "miles-reproduce run" in report.read_text()  # made by: a command that exists here


@pytest.mark.slow
def test_the_tests_of_the_source_distribution_run(source: Path) -> None:
    ok(sys.executable, "-m", "pytest", "--collect-only", "-q", cwd=source)  # all can be imported
    some = [
        f"tests/test_{name}.py" for name in ("scheduler", "packaging", "readme", "paper_values")
    ]
    ok(sys.executable, "-m", "pytest", "-q", *some, cwd=source)


def test_the_checkout_s_places() -> None:
    assert places.CHECKOUT == REPO
    assert (places.CONF / "config.yaml").is_file()
    assert (places.PAPER / "table1.csv").is_file()
    assert [places.command(name) for name in ("train", "prepare", "reproduce")] == [
        "python train.py",
        "python scripts/prepare_data.py",
        "python scripts/reproduce.py",
    ]


BARE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden}: raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Nothing())
"""
FORBIDDEN = {"pydantic", "hydra", "omegaconf", "pandas", "wandb", "numpy", "yaml", "sklearn"}


def bare(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Code in an interpreter without any package of the suite."""
    text = BARE.replace("{forbidden}", repr(FORBIDDEN)) + code
    return call(sys.executable, "-c", text, *arguments, cwd=REPO)


def test_the_scheduler_works_without_the_suite() -> None:
    code = "from miles_repro import MILES; print(MILES.__name__)"
    done = bare(code)
    assert done.stdout == "MILES\n", done.stderr


@pytest.mark.parametrize("command", ["train", "reproduce", "prepare"])
def test_the_suite_without_its_packages_is_one_clear_line(command: str) -> None:
    code = f"from miles_repro import cli; sys.exit(cli.{command}())"
    done = bare(code, "plan" if command == "reproduce" else "dataset=smnist_mini")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("is not installed: pip install 'miles-repro[suite]'\n")
    assert done.stderr.count("\n") == 1


def test_import_is_light() -> None:
    """Over torch: no package but torch, and few modules of our own."""
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "from miles_repro import MILES; print(*sorted(set(sys.modules) - before))"
    )
    added = set(ok(sys.executable, "-c", code, cwd=REPO).split())
    own = {m for m in added if m.startswith("miles_repro")}
    assert own == {"miles_repro", *(f"miles_repro.{m}" for m in ("factors", "miles", "scheduler"))}
    assert {m.split(".")[0] for m in added - own} <= set(sys.stdlib_module_names)


def test_completion_knows_the_lazy_names() -> None:
    code = "import miles_repro, sys; print(*dir(miles_repro)); assert 'torch' not in sys.modules"
    assert set(miles_repro.__all__) <= set(ok(sys.executable, "-c", code, cwd=REPO).split())
    with pytest.raises(AttributeError, match="has no attribute 'MILE'"):
        miles_repro.MILE
