"""A pool of worker processes: one numeric thread each, gone with their parent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import TypeVar

from miles_repro.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def in_parallel(
    call: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Generator[tuple[int, Result]]:
    """Yield ``(position, call(task))`` as results arrive, in any order.

    ``call`` must be picklable when ``workers`` > 1. One worker or one task runs right here. An
    error of a call is raised here, after the running calls ended; the waiting ones are dropped.
    """
    if workers <= 1 or len(tasks) <= 1:
        for position, task in enumerate(tasks):
            yield position, call(task)
        return
    # spawn: a forked copy of a process that has started threads (torch, BLAS) can hang
    with (
        _one_thread(),
        ProcessPoolExecutor(
            min(workers, len(tasks)), mp_context=get_context("spawn"), initializer=_begin_worker
        ) as pool,
    ):
        futures: dict[Future[Result], int] = {}
        try:
            futures = {pool.submit(call, task): at for at, task in enumerate(tasks)}
            pending = set(futures)
            while pending:
                ready, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield futures.pop(future), future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed (out of memory?): run the same command again to go "
                "on from where it stopped, if it happens again with fewer processes (workers=1, "
                "--jobs=1)"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    # numeric libraries read these when they load, so they must be there before a worker starts
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
