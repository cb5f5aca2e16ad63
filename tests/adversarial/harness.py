"""One attack, one oracle: run a command in a process of its own, and judge how it ended.

The process is forked from this one, so that an attack costs no start of Python; whatever it does to
itself (a crash, a hang, a limit) stays there.
"""

from __future__ import annotations

import gc
import hashlib
import os
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
FIGURES: dict[str, Counter[str]] = {}
"""Campaign -> what was tried and what came of it; printed at the end of the session."""
MOST_LINES = 3
MEMORY = 16 * 2**30


@dataclass(frozen=True)
class End:
    """How a command ended; ``code`` is negative after a signal, None after a hang."""

    code: int | None
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err


def attempt(script: str, arguments: Sequence[str], *, cwd: Path, limit_s: float = 60) -> End:
    """Run ``python <script> <arguments>`` in a fork of this process."""

    def command() -> int:
        sys.argv = [str(REPO / script), *arguments]
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as e:
            return e.code if isinstance(e.code, int) else int(e.code is not None)
        return 0

    return in_a_fork(command, cwd, limit_s)


def in_a_fork(command: Callable[[], int], cwd: Path, limit_s: float) -> End:
    began = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.setsid()
                os.chdir(cwd)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                sys.stdout = open(1, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
                sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
                code = command()
            except BaseException:
                traceback.print_exc()
                code = 1
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = _wait(pid, began + limit_s)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    code = None if status is None else os.waitstatus_to_exitcode(status)
    return End(code, texts[0], texts[1], time.monotonic() - began)


def _wait(pid: int, end: float) -> int | None:
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def judge(end: End, campaign: str, *, refused: bool | None = None, out_counts: bool = True) -> str:
    """What is wrong with how a command ended, '' where nothing is; counted for the figures.

    refused: whether it must (True) or must not (False) fail; out_counts: its standard output is
    part of the message, not a result.
    """
    figures = FIGURES.setdefault(campaign, Counter())
    figures["tried"] += 1
    message = end.text if out_counts else end.err
    if message.startswith("usage: "):  # argparse's own help comes before its line
        message = message[message.find("error: ") :]
    lines = [line for line in message.splitlines() if line.strip()]
    if end.code is None:
        problem = "hang"
    elif end.code < 0:
        problem = "crash"
    elif "Traceback (most recent call last)" in end.text:
        problem = "traceback"
    elif end.code == 0:
        figures["accepted"] += 1
        problem = "accepted" if refused else ""
    else:
        figures["refused"] += 1
        problem = "no message" if not lines else "too long" if len(lines) > MOST_LINES else ""
        problem = "refused" if refused is False else problem
    if problem:
        figures[f"bad: {problem}"] += 1
        return f"{problem} (exit {end.code}): {message.strip()[-600:]}"
    return ""


def lost(campaign: str, before: dict[str, str], after: dict[str, str]) -> str:
    """Which finished files are not what they were."""
    changed = [name for name, digest in before.items() if after.get(name) != digest]
    FIGURES.setdefault(campaign, Counter())["files lost"] += len(changed)
    return f"changed or lost: {changed}" if changed else ""


def digests(folder: Path) -> dict[str, str]:
    """Relative path -> hash of every ordinary file below a folder."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                found[str(path.relative_to(folder))] = digest
    return found
