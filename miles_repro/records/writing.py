"""One run's folder, while it is being written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miles_repro.errors import UserError
from miles_repro.records.disk import (
    disk_errors,
    exclusive,
    read_regular,
    replace,
    to_json,
    write_atomic,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CONFIG, ROWS, SUMMARY = "config.json", "metrics.jsonl", "summary.json"
NEW_ROWS = "metrics.new.jsonl"
"""Of a finished run while it is repeated: its own stay until the end."""
LAST, CHECKSUM, ERROR, LOCK = "last.pt", "last.sha256", "error.txt", ".lock"
WEIGHTS, PREDICTIONS = "weights.pt", "predictions.npz"


class RunRecord:
    """One run's folder, while it is being written.

    code: module -> SHA-256 of the sources that write it; a state saved by others is not resumed.
    """

    def __init__(self, folder: Path, code: Mapping[str, str] | None = None) -> None:
        self.folder, self.code = folder, dict(code or {})
        self._digest: str | None = None  # of last.pt as it lies there
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def lease(self) -> Iterator[bool]:
        """Hold the run for this process; yields False where another live process has it.

        The lock goes with the process that holds it, so a killed run is free at once.

        Raises:
            UserError: the folder cannot be written, or its file system has no locks.
        """
        # Not 0 s: `status_of` holds the lock for an instant to see whether anybody has it.
        lock = exclusive(self.folder / LOCK, 0.3)
        with disk_errors(self.folder):
            mine = lock.__enter__()
        try:
            if mine:
                self._clear_traces()
            yield mine
        finally:
            lock.__exit__(None, None, None)

    def _clear_traces(self) -> None:
        """What an earlier try left behind: its error, and files a kill cut short."""
        for path in (self.folder / ERROR, *self.folder.glob("*.tmp")):
            with disk_errors(path):
                path.unlink(missing_ok=True)

    def write_config(self, identity: dict[str, Any]) -> None:
        write_atomic(self.folder / CONFIG, to_json(identity, indent=1) + "\n")

    def rewrite_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        write_atomic(self._rows, "".join(to_json(row) + "\n" for row in rows))

    def append(self, row: Mapping[str, Any]) -> None:
        with disk_errors(self._rows), self._rows.open("a") as file:
            file.write(to_json(row) + "\n")

    @property
    def _rows(self) -> Path:
        return self.folder / (NEW_ROWS if (self.folder / SUMMARY).exists() else ROWS)

    def save_state(self, state: dict[str, Any]) -> None:
        """Keep what a resumed run needs; the previous state stays until this one is whole.

        The checksums of the new and of the previous state are written first, so that whichever a
        kill leaves is known to be whole.
        """
        import torch

        def write(new: Path) -> None:
            torch.save({**state, "code": self.code}, new)
            known, self._digest = self._digest, _sha256(new)
            write_atomic(self.folder / CHECKSUM, f"{self._digest}\n{known or ''}\n")

        replace(self.folder / LAST, write)

    def load_state(self) -> dict[str, Any] | None:
        """The saved state, or None: nothing saved, or damaged (then the run starts afresh).

        Whether its contents fit is for the caller to find out: `discard_state` if they do not.
        """
        import torch

        path = self.folder / LAST
        if not os.path.lexists(path):
            return None
        try:
            digest = _sha256(path)
            if digest not in read_regular(self.folder / CHECKSUM).decode().split():
                raise ValueError("its checksum differs")
            state = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise ValueError("it holds no state")
        except Exception as e:
            self.discard_state(f"is damaged ({type(e).__name__})")
            return None
        if state.pop("code", None) != self.code:
            self.discard_state("was saved by other code")
            return None
        self._digest = digest
        return state

    def discard_state(self, why: str) -> None:
        """Warn that the saved state cannot be used, and forget it: the run starts afresh."""
        print(
            f"warning: {self.folder / LAST} {why}; this run starts again from its first epoch",
            flush=True,
        )
        self._digest = None
        for name in (LAST, CHECKSUM):
            with disk_errors(self.folder / name):
                (self.folder / name).unlink(missing_ok=True)

    def save_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Keep the best epoch's weights (``keep=weights``)."""
        import torch

        replace(self.folder / WEIGHTS, partial(torch.save, dict(weights)))

    def load_weights(self) -> dict[str, Tensor]:
        """What `save_weights` kept. Raises UserError where there is nothing, or it is damaged."""
        import torch

        with _kept(self.folder / WEIGHTS, "weights"):
            return torch.load(self.folder / WEIGHTS, map_location="cpu", weights_only=True)

    def save_predictions(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep test predictions by row (``keep=predictions``): name -> array."""
        import numpy as np

        def write(new: Path) -> None:
            with new.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)

        replace(self.folder / PREDICTIONS, write)

    def load_predictions(self) -> dict[str, np.ndarray]:
        """What `save_predictions` kept. Raises UserError as `load_weights`."""
        import numpy as np

        with (
            _kept(self.folder / PREDICTIONS, "predictions"),
            np.load(self.folder / PREDICTIONS, allow_pickle=False) as archive,
        ):
            return {name: archive[name] for name in archive.files}

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary: the run is finished."""
        if self._rows.name == NEW_ROWS and self._rows.exists():
            with disk_errors(self._rows):
                self._rows.replace(self.folder / ROWS)
        write_atomic(self.folder / SUMMARY, to_json(summary, indent=1) + "\n")
        for name in (LAST, CHECKSUM, ERROR):
            (self.folder / name).unlink(missing_ok=True)

    def fail(self, text: str) -> Path | None:
        """Keep what went wrong; returns the file, None where it cannot be written."""
        path = self.folder / ERROR
        try:
            path.write_text(text.rstrip() + "\n", encoding="utf-8", errors="backslashreplace")
        except OSError:  # the disk that failed the run fails this too; the caller still reports
            return None
        return path


@contextmanager
def _kept(path: Path, extra: str) -> Iterator[None]:
    """One line for an extra that was not kept, or cannot be read. Nothing in it is executed."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"no {path}: train the run with keep={extra}") from None
    except Exception as e:
        raise UserError(f"{path} is damaged ({type(e).__name__})") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
