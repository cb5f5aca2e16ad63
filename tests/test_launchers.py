"""The same small sweep under every launcher gives the same records, bit for bit."""

from __future__ import annotations

import os
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from commands import finish, leftovers, results, train

pytestmark = pytest.mark.slow
SWEEP = ("strategy=miles,ogm_ge,gblend", "fusion=sum", "seed=0,1")
RUNS = 6


@pytest.fixture(scope="module")
def undisturbed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("basic")
    done = finish(train(tiny_data, runs, *SWEEP))
    assert done.returncode == 0, done.stderr
    found = results(runs)
    assert len(found) == RUNS
    return found


def check(data: Path, runs: Path, launcher: str, expected: dict[str, Any], *more: str) -> str:
    done = finish(train(data, runs, *SWEEP, f"hydra/launcher={launcher}", *more))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{RUNS} done" in done.stdout
    assert results(runs) == expected
    assert not leftovers(runs)
    again = finish(train(data, runs, *SWEEP, f"hydra/launcher={launcher}", *more))
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{RUNS} skipped" in again.stdout
    return done.stdout + done.stderr


def test_joblib(tiny_data: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    check(tiny_data, tmp_path, "local", undisturbed)


def test_submitit_on_this_machine(
    tiny_data: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="extra slurm")
    check(tiny_data, tmp_path, "submitit_local", undisturbed)


def test_ray(tiny_data: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    if find_spec("hydra_plugins.hydra_ray_launcher") is None:
        pytest.skip("needs the extra ray: make test-slow installs it")
    check(tiny_data, tmp_path, "ray_cluster", undisturbed)


SBATCH = """#!{python}
import os, re, subprocess, sys
script = sys.argv[-1]
text = open(script).read()
log = os.environ["FAKE_SLURM_LOG"]
open(log, "a").write(text)
count = int(re.search(r"--array=0-(\\d+)", text)[1]) + 1
for task in range(count):
    names = {{
        "SLURM_JOB_ID": str(100 + task), "SLURM_ARRAY_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "here",
    }}
    subprocess.Popen(
        ["bash", script], env={{**os.environ, **names}}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
print("Submitted batch job 77")
"""
SRUN = """#!{python}
import os, sys
at = next(i for i, word in enumerate(sys.argv) if "python" in word)
os.execv(sys.argv[at], sys.argv[at:])
"""
SACCT = """#!/bin/sh
echo 'JobID|State|NodeList'
for i in 0 1 2 3 4 5; do echo "77_$i|RUNNING|here"; done
"""


@pytest.fixture
def slurm_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """sbatch, srun and sacct that run the job scripts on this machine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        path = folder / name
        path.write_text(text.format(python=sys.executable) if "{python}" in text else text)
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM_LOG", str(tmp_path / "submitted"))
    return tmp_path / "submitted"


def test_slurm_scripts(
    tiny_data: Path, tmp_path: Path, undisturbed: dict[str, Any], slurm_commands: Path
) -> None:
    """What slurm.yaml submits, carried out by stand-ins of SLURM's own commands."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="extra slurm")
    more = ("hydra.launcher.partition=short", "hydra.launcher.array_parallelism=2")
    check(tiny_data, tmp_path / "runs", "slurm", undisturbed, *more)
    script = slurm_commands.read_text()
    for line in ("--array=0-5%2", "--cpus-per-task=1", "--partition=short", "--time=240"):
        assert line in script
