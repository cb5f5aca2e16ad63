"""Run records on disk: the truth every table, plot and tracker is a view of.

``<runs_dir>/<dataset>/<fusion>/<strategy>/<run_id>/`` holds ``config.json`` (all that can move a
number), ``metrics.jsonl`` (a row an epoch), ``last.pt`` (state to resume from, until the end),
``error.txt`` (only after a failure) and ``summary.json`` (written last, in one step: where it
exists the run is finished). Imports neither torch nor pandas.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from miles_repro.errors import UserError

CONFIG, ROWS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
LAST, ERROR, LOCK = "last.pt", "error.txt", ".lock"
TORCH_WRITE_ERRORS = (
    "PytorchStreamWriter",
    "file write failed",
    "iostream error",
    "unexpected pos",
)
"""How torch.save words a disk that takes no more: not as an OSError."""


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
        reason = {
            errno.ENOSPC: "the disk is full: free some space",
            errno.EDQUOT: "the disk quota is used up: free some space",
            errno.EACCES: "permission denied: make it writable or set runtime.runs_dir",
            errno.EROFS: "the file system is read-only: set runtime.runs_dir",
        }.get(e.errno or 0, str(e))
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
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run, None where there is none that can be read."""
    try:
        summary = json.loads((folder / SUMMARY).read_bytes())
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and summary.get("status") == "done" else None


class RunRecord:
    """One run's folder, while it is being written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lease(self) -> Iterator[bool]:
        """Hold the run for this process; yields False where another live process has it.

        The operating system drops the lock with the process that holds it, so a killed run is
        free at once and nothing stale is left to detect.
        """
        # Not 0 s: `status_of` holds the lock for an instant to see whether anybody has it.
        lock = FileLock(self.folder / LOCK, timeout=0.3)
        with disk_errors(self.folder):
            try:
                lock.acquire(poll_interval=0.02)
            except Timeout:
                yield False
                return
        try:
            self._clear_traces()
            yield True
        finally:
            lock.release()

    def _clear_traces(self) -> None:
        """What an earlier try left behind: its error, and files a kill cut short."""
        for path in (self.folder / ERROR, *self.folder.glob("*.tmp")):
            path.unlink(missing_ok=True)

    def write_config(self, identity: dict[str, Any]) -> None:
        write_atomic(self.folder / CONFIG, to_json(identity, indent=1) + "\n")

    def rewrite_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        write_atomic(self.folder / ROWS, "".join(to_json(row) + "\n" for row in rows))

    def append(self, row: dict[str, Any]) -> None:
        with disk_errors(self.folder / ROWS), (self.folder / ROWS).open("a") as file:
            file.write(to_json(row) + "\n")

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep what a resumed run needs; the previous state stays until this one is whole."""
        import torch

        temporary = self.folder / f"{LAST}.tmp"
        with disk_errors(self.folder / LAST):
            try:
                torch.save(state, temporary)
                temporary.replace(self.folder / LAST)
            finally:
                temporary.unlink(missing_ok=True)

    def load_state(self) -> dict[str, Any] | None:
        """The saved state, or None: nothing saved, or damaged (then the run starts afresh)."""
        import torch

        if not (self.folder / LAST).exists():
            return None
        try:
            return torch.load(self.folder / LAST, map_location="cpu", weights_only=True)
        except Exception as e:
            print(
                f"warning: {self.folder / LAST} is damaged ({type(e).__name__}); "
                "this run starts again from its first epoch",
                flush=True,
            )
            return None

    def finish(self, summary: dict[str, Any]) -> None:
        write_atomic(self.folder / SUMMARY, to_json(summary, indent=1) + "\n")
        for name in (LAST, ERROR):
            (self.folder / name).unlink(missing_ok=True)

    def fail(self, text: str) -> Path | None:
        """Keep what went wrong; returns the file, None where it cannot be written."""
        path = self.folder / ERROR
        try:
            path.write_text(text.rstrip() + "\n", encoding="utf-8")
        except OSError:  # the disk that failed the run fails this too; the caller still reports
            return None
        return path


def run_folders(root: Path) -> Iterator[Path]:
    """Every run folder at or below ``root``, in a fixed order."""
    if not root.is_dir():
        return
    names = sorted(os.scandir(root), key=lambda e: e.name)
    if any(e.name in (SUMMARY, CONFIG, ROWS, ERROR) for e in names):
        yield root
        return
    for entry in names:
        if entry.is_dir() and not entry.name.startswith("."):
            yield from run_folders(Path(entry.path))


def load_summaries(root: Path) -> list[dict[str, Any]]:
    """The summaries of all finished runs at or below ``root``."""
    return [s for folder in run_folders(root) if (s := read_summary(folder)) is not None]


def load_rows(folder: Path) -> list[dict[str, Any]]:
    """The epoch rows of one run; a last line cut short by a kill is left out."""
    rows = []
    for line in (folder / ROWS).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def status_of(folder: Path) -> str:
    """``done``, ``running``, ``failed`` or ``unfinished``."""
    if read_summary(folder) is not None:
        return "done"
    if (folder / LOCK).exists():
        lock = FileLock(folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return "running"
        except OSError:  # another user's folder: nobody can tell
            return "unfinished"
        lock.release()
    return "failed" if (folder / ERROR).exists() else "unfinished"
