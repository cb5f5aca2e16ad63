"""Nothing outlives its command, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import environment, finish, members, reproduce, start, train, wait_for

from miles_repro.machine import PARENT

CHILD = "import time; from miles_repro.machine import end_with_parent as e; print(e(), flush=True);"
LEADER = f"""
import subprocess, sys, time
from miles_repro.machine import lead
lead()
child = subprocess.Popen([sys.executable, "-c", {CHILD + "time.sleep(300)"!r}])
print(child.pid, flush=True)
time.sleep(300)
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"


def test_a_process_ends_with_the_one_that_leads_it() -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert leader.stdout is not None
    lines = sorted(leader.stdout.readline().strip() for _ in range(2))  # in either order
    child = int(lines[0])
    assert lines[1] == "True"
    leader.kill()
    leader.wait()
    leader.stdout.close()
    wait_for(lambda: gone(child), 20)


@pytest.mark.parametrize("parent", ["", "1"])
def test_a_process_that_nothing_leads_stays(parent: str) -> None:
    """Process 1 lives, but did not start it: the variable came from somewhere else."""
    env = {**environment(), PARENT: parent}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, env=env, check=False
    )
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_a_command_as_ctrl_c_does(number: signal.Signals) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("started under nohup: its children ignore SIGHUP, as they should")
    code = (
        "import os, sys, time; from miles_repro.sweep import launch\n"
        "def main():\n"
        f"    os.kill(os.getpid(), {int(number)}); time.sleep(30)\n"
        "sys.exit(launch.run(main))"
    )
    done = finish([sys.executable, "-c", code], timeout=60)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "interrupted: the same command continues\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize("command", ["train", "reproduce"])
def test_no_worker_outlives_its_command(
    command: str, number: signal.Signals, tiny_data: Path, tmp_path: Path
) -> None:
    """The signal goes to the command's own process alone, in the middle of a run."""
    if number != signal.SIGKILL and signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("started under nohup: its children ignore SIGHUP, as they should")
    runs, log = tmp_path / "runs", tmp_path / "log"
    slow = ("strategy=slow", "fusion=sum", "epochs=200", "seed=0,1", "hydra/launcher=local")
    asked = ("--strategies", "slow", "--fusions", "sum", "--no-ablations", "--no-estimate")
    words = {
        "train": train(tiny_data, runs, *slow),
        "reproduce": reproduce("run", tiny_data, runs, *asked, "epochs=200"),
    }
    process = start(words[command], log)
    try:
        wait_for(lambda: any(runs.glob("*/*/*/*/last.pt")) or process.poll() is not None)
        process.send_signal(number)
        began = time.monotonic()
        code = process.wait(timeout=30)
        assert code == (-number if number == signal.SIGKILL else 130), log.read_text()
        wait_for(lambda: not members(process.pid), 20)
        assert time.monotonic() - began < 40
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    if number != signal.SIGKILL:
        assert "interrupted" in log.read_text()
    assert "Traceback" not in log.read_text()
