"""This machine and its processes: cores, durations, signals, children that end with us."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from functools import cache

PARENT = "MILES_PARENT"
"""Environment variable: the process that its children shall not outlive."""
WATCH_S = 0.5


@cache
def cores() -> int:
    """Cores this process may use: affinity and container quotas count."""
    from joblib import cpu_count

    return int(cpu_count())


def warn_about_threads(workers: object, threads: object) -> None:
    """On stderr, where a sweep's workers would wait for each other. No number: others say so."""
    if not (isinstance(workers, int) and isinstance(threads, int)):
        return
    if workers > 0 and workers * threads > cores():
        print(
            f"warning: {workers} workers x {threads} threads on {cores()} cores slow each other "
            "down: lower hydra.launcher.n_jobs or runtime.threads",
            file=sys.stderr,
        )


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``45 s``, ``3 min 10 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def stop_on_signals() -> None:
    """SIGTERM and SIGHUP end this process as Ctrl-C does; what follows the first is ignored."""

    def stop(number: int, frame: object) -> None:
        for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, stop)


def lead() -> None:
    """Processes started from here on end with this one, where they call `end_with_parent`."""
    os.environ[PARENT] = str(os.getpid())


def end_with_parent() -> bool:
    """From now on this process ends when the one that started it does, however that ended.

    A thread that looks, rather than a signal from the kernel: that one would come when the
    starting thread ends, and only on Linux. Records stand any kill, so this is one.
    Returns False where nothing that leads its children (`lead`) started it.
    """
    parent = int(os.environ.get(PARENT) or 0)
    if not parent or (os.getppid() != parent and _alive(parent)):  # started by something else
        return False

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
    return True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
