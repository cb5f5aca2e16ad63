"""Row-by-row filling of memory-mapped arrays in chunks whose completion is on record.

The unit of work of ``Preparation.fill``: what a worker process does with a chunk, and how an
interrupted filling is recognised, continued and settled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import DTypeLike, NDArray

Item = TypeVar("Item")
Sample = Mapping[str, NDArray[Any]]
Layout = Mapping[str, tuple[tuple[int, ...], DTypeLike]]
Problem = tuple[int, str, str]  # position of the item, file, reason


class Skip(Exception):
    """Raised by a worker: leave this item out by a documented rule and report it."""

    def __init__(self, file: object, reason: str) -> None:
        super().__init__(str(file), reason)
        self.file, self.reason = str(file), reason


class Refuse(Exception):
    """Raised by a worker: this item must not be left out; the preparation ends with an error."""

    def __init__(self, file: object, reason: str) -> None:
        super().__init__(str(file), reason)
        self.file, self.reason = str(file), reason


def plan_key(identity: object, items: Iterable[object], arrays: Layout, chunk: int) -> str:
    """A hash of everything that decides the bytes of a filling.

    Of a Path inside an item, its size and time of change count too: a mended file starts anew.
    """
    digest = hashlib.sha256(repr((identity, chunk)).encode())
    digest.update(repr([(m, shape, np.dtype(d).str) for m, (shape, d) in arrays.items()]).encode())
    for item in items:
        digest.update(repr(item).encode())
        for value in item if isinstance(item, tuple) else (item,):
            if isinstance(value, Path):
                try:
                    stat = value.stat()
                except OSError:  # the worker will say what is wrong with it
                    continue
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()


def resume(
    log: Path, key: str, rows: Mapping[str, Path], arrays: Layout, count: int
) -> dict[int, list[Problem]]:
    """Chunks an earlier filling finished, each with its skipped items; {} after a fresh start.

    A fresh start (no log, other inputs, or missing array files) reserves the disk space of every
    array and begins a new log.
    """
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    there = all(path.exists() or path.with_suffix(".npy").exists() for path in rows.values())
    if there and lines and lines[0] == key:
        done = {}
        for line in lines[1:]:
            try:
                chunk, skipped = json.loads(line)
            except ValueError:  # the line that was being written when the process was killed
                continue
            done[chunk] = [(at, file, reason) for at, file, reason in skipped]
        return done
    log.unlink(missing_ok=True)
    for name, (shape, dtype) in arrays.items():
        rows[name].with_suffix(".npy").unlink(missing_ok=True)
        _allocate(rows[name], (count, *shape), dtype)
    log.write_text(key + "\n", encoding="utf-8")
    return {}


def fill_chunk(
    worker: Callable[[Item], Sample],
    rows: Mapping[str, Path],
    arrays: Layout,
    task: tuple[int, Sequence[Item]],
) -> tuple[list[Problem], list[Problem]]:
    """Decode the items of one chunk into their rows; returns (skipped, refused)."""
    first, items = task
    skipped: list[Problem] = []
    refused: list[Problem] = []
    open_rows = {name: open_memmap(path, mode="r+") for name, path in rows.items()}
    for at, item in enumerate(items, start=first):
        try:
            sample = worker(item)
        except Skip as verdict:
            skipped.append((at, verdict.file, verdict.reason))
        except Refuse as verdict:
            refused.append((at, verdict.file, verdict.reason))
        except OSError as error:
            file = error.filename or repr(item)
            refused.append((at, str(file), error.strerror or str(error)))
        else:
            for name, (shape, dtype) in arrays.items():
                value = sample[name]
                if value.shape != shape or value.dtype != np.dtype(dtype):
                    raise TypeError(
                        f"worker gave {name} {value.dtype} {value.shape} for {item!r}, "
                        f"declared {np.dtype(dtype)} {shape}"
                    )
                open_rows[name][at] = value
    for array in open_rows.values():
        array.flush()
    return skipped, refused


def settle(path: Path, kept: NDArray[np.int64] | None) -> None:
    """Turn filled ``<m>.rows`` into ``<m>.npy``, without the rows of items that were left out.

    Can be repeated after an interruption at any point.
    """
    final = path.with_suffix(".npy")
    if not path.exists():  # settled before the interruption
        return
    if kept is None:
        path.replace(final)
        return
    full = np.load(path, mmap_mode="r", allow_pickle=False)
    packed = path.with_suffix(".packed")
    _allocate(packed, (len(kept), *full.shape[1:]), full.dtype)
    out = open_memmap(packed, mode="r+")
    for start in range(0, len(kept), 256):
        out[start : start + 256] = full[kept[start : start + 256]]
    out.flush()
    packed.replace(final)
    path.unlink()


def _allocate(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    array = open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
    size = path.stat().st_size
    del array
    # reserve the space now: writing through a map to a full disk would kill the process
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(path.parent).free < size:
            raise OSError(28, f"No space left for {size:,} bytes")
