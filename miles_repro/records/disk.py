"""Files that appear whole or not at all, locks that die with their process, plain errors."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miles_repro.errors import UserError

LARGEST_TEXT = 64 * 2**20
REASONS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EACCES: "permission denied: make it writable or choose another folder",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.ELOOP: "a symbolic link leads to itself",
    errno.ENOTDIR: "a file stands where a folder should be",
}
TORCH_WRITE_ERRORS = (
    "PytorchStreamWriter",
    "file write failed",
    "iostream error",
    "unexpected pos",
)
"""How torch.save words a disk that takes no more: not as an OSError."""
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text; NaN and infinity become null, which JSON can hold."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one line for the user."""
    try:
        yield
    except OSError as e:
        reason = REASONS.get(e.errno or 0, str(e))
        raise UserError(f"cannot write {path}: {reason}; finished runs are kept") from None
    except RuntimeError as e:
        if not any(words in str(e) for words in TORCH_WRITE_ERRORS):
            raise
        raise UserError(f"cannot write {path}: disk full?; finished runs are kept") from None


def require_writable(folder: Path) -> None:
    """Raises UserError where no file can be made in ``folder``, before anything is started."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / ".writable", "")
        (folder / ".writable").unlink(missing_ok=True)


def write_atomic(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    replace(path, lambda new: new.write_text(text, encoding="utf-8"))


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """``write`` a new file; once it is safe on the disk it takes the place of ``path``."""
    new = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            write(new)
            with new.open("rb+") as file:
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def read_regular(path: str | Path, largest: int = LARGEST_TEXT) -> bytes:
    """The bytes of an ordinary file of reasonable size: no pipe is waited for, no device read.

    Raises:
        OSError: it is something else, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", str(path))
        if found.st_size > largest:
            raise OSError(errno.EFBIG, "too large", str(path))
        return file.read()


@contextmanager
def exclusive(path: Path, wait_s: float = 0.0, *, shared: bool = False) -> Iterator[bool]:
    """Hold the lock file ``path``; yields False where another process has it after ``wait_s``.

    The operating system drops the lock with the process that holds it, so nothing stale is ever
    left to detect. ``shared``: only look, together with others who look.

    Raises:
        OSError: it cannot be opened.
        UserError: the file system has no locks.
    """
    # O_NONBLOCK: a pipe of this name is not waited for
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o644)
    try:
        end = time.monotonic() + wait_s
        while not (mine := _try_lock(descriptor, path, shared)) and time.monotonic() < end:
            time.sleep(0.02)
        yield mine
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, path: Path, shared: bool) -> bool:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:
        if e.errno in NO_LOCKS:
            raise UserError(
                f"the file system of {path.parent} has no file locks, which keep two processes "
                "from training one run: set runtime.runs_dir to another one"
            ) from None
        raise
    return True
