"""Reading a prepared data set: memory-mapped arrays in, normalised batches on the device out.

A prepared folder holds one ``<modality>.npy`` a modality, ``labels.npy``, ``splits.npz``,
``stats.npz`` and ``manifest.json`` (see ``writer.py``, which writes it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from miles_repro.data.manifest import read_manifest, sha256_of
from miles_repro.errors import UserError

Batch = tuple[dict[str, Tensor], Tensor]
BATCH_BYTES = 64 * 2**20
"""Largest input of an evaluation batch."""
HASH_LIMIT = 512 * 2**20
"""Sets up to this many bytes are hashed before every first use; larger ones checked by size."""
_checked: set[tuple[str, int, int]] = set()


class PreparedData:
    """One prepared data set under one split scheme."""

    def __init__(self, folder: Path, scheme: str, modalities: list[str]) -> None:
        self.folder, self.scheme = folder, scheme
        self.manifest = read_manifest(folder)
        schemes = self.manifest["schemes"]
        if scheme not in schemes:
            raise UserError(
                f"{folder}: no split scheme {scheme!r}; it has {', '.join(sorted(schemes))}"
            )
        missing = [m for m in modalities if m not in self.manifest["modalities"]]
        if missing:
            raise UserError(f"{folder}: no modality {', '.join(missing)} in this prepared set")
        self._check_files()
        self.arrays = {m: self._load(f"{m}.npy", mmap=True) for m in modalities}
        self.labels = self._load("labels.npy", mmap=False)
        self._splits = self._load("splits.npz")
        self._stats = self._load("stats.npz")

    def part(
        self, name: str, device: torch.device, resident_mb: int, fraction: float = 1.0
    ) -> Part:
        """``train``, ``val`` or ``test``; ``fraction`` keeps the first share of its rows."""
        rows = self._splits[f"{self.scheme}.{name}"]
        rows = rows[: max(1, round(fraction * len(rows)))]
        stats = {
            m: (self._stats[f"{self.scheme}.{m}.mean"], self._stats[f"{self.scheme}.{m}.std"])
            for m in self.arrays
            if f"{self.scheme}.{m}.mean" in self._stats
        }
        return Part(self.arrays, self.labels, rows, stats, device, resident_mb)

    @property
    def stand_in(self) -> bool:
        """Whether this is other data than the paper's under the paper's name."""
        return bool(self.manifest.get("report", {}).get("stand_in"))

    def _check_files(self) -> None:
        total = sum(entry["bytes"] for entry in self.manifest["files"].values())
        for name, entry in self.manifest["files"].items():
            path = self.folder / name
            try:
                found = path.stat()
            except FileNotFoundError:
                raise _broken(self.folder, name, "is missing") from None
            if found.st_size != entry["bytes"]:
                raise _broken(self.folder, name, f"has {found.st_size} bytes, not {entry['bytes']}")
            key = (str(path.resolve()), found.st_mtime_ns, found.st_size)
            if total > HASH_LIMIT or key in _checked:
                continue
            if sha256_of(path) != entry["sha256"]:
                raise _broken(self.folder, name, "does not match its sha256 in the manifest")
            _checked.add(key)

    def _load(self, name: str, mmap: bool = False) -> Any:
        try:
            found = np.load(self.folder / name, mmap_mode="r" if mmap else None, allow_pickle=False)
            return dict(found) if name.endswith(".npz") else found
        except (OSError, ValueError, EOFError, BadZipFile) as e:
            raise _broken(self.folder, name, f"cannot be read ({e})") from None


class Part:
    """One split: on the device as float32 where that fits, else there as stored (a CPU gains
    nothing from that copy), else memory-mapped.

    Where a batch comes from never changes its values: normalisation is the same element-wise
    (float(x) - mean) / std on the device.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        labels: NDArray[Any],
        rows: NDArray[np.int64],
        stats: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
        device: torch.device,
        resident_mb: int,
    ) -> None:
        self.device = device
        self.labels = torch.from_numpy(labels[rows]).to(device)
        self._arrays, self._rows = arrays, rows
        self._stats = {
            m: tuple(torch.from_numpy(np.asarray(s, np.float32)).to(device) for s in pair)
            for m, pair in stats.items()
        }
        self._resident: dict[str, Tensor] | None = None
        self._resident_as_stored = False
        sizes = [(len(rows) * int(np.prod(a.shape[1:])), a.itemsize) for a in arrays.values()]
        if sum(n * 4 for n, _ in sizes) <= resident_mb * 2**20:
            self._resident = {m: self._ready(m, self._moved(a[rows])) for m, a in arrays.items()}
        elif device.type != "cpu" and sum(n * b for n, b in sizes) <= resident_mb * 2**20:
            self._resident = {m: self._moved(a[rows]) for m, a in arrays.items()}
            self._resident_as_stored = True

    def __len__(self) -> int:
        return len(self._rows)

    def within_memory(self, size: int) -> int:
        """``size``, or the largest batch whose float32 input stays below BATCH_BYTES."""
        sample = sum(4 * int(np.prod(a.shape[1:])) for a in self._arrays.values())
        return max(1, min(size, BATCH_BYTES // sample))

    def batch(self, index: Tensor, only: str | None = None) -> Batch:
        """Samples ``index`` (B,) of this split: modality -> (B, ...) float32, and labels.

        ``only``: leave the other modalities out.
        """
        names = tuple(self._arrays) if only is None else (only,)
        at = index.to(self.device)
        if self._resident is not None:
            return self._gather(at, names)
        rows = self._rows[index.numpy()]
        x = {m: self._ready(m, self._moved(self._arrays[m][rows])) for m in names}
        return x, self.labels.index_select(0, at)

    def batches(self, order: Tensor, size: int, only: str | None = None) -> Iterator[Batch]:
        """Batches of ``size`` in the given order, the last one smaller; nothing is dropped."""
        if self._resident is not None:
            names = tuple(self._arrays) if only is None else (only,)
            for at in order.to(self.device).split(size):
                yield self._gather(at, names)
            return
        chunks = order.split(size)
        with ThreadPoolExecutor(1) as reader:  # read the next batch while this one is used
            coming = reader.submit(self.batch, chunks[0], only)
            for chunk in chunks[1:]:
                batch = coming.result()
                coming = reader.submit(self.batch, chunk, only)
                yield batch
            yield coming.result()

    def _gather(self, at: Tensor, names: tuple[str, ...]) -> Batch:
        assert self._resident is not None
        x = {m: self._resident[m].index_select(0, at) for m in names}
        if self._resident_as_stored:
            x = {m: self._ready(m, v) for m, v in x.items()}
        return x, self.labels.index_select(0, at)

    def _moved(self, rows: NDArray[Any]) -> Tensor:
        x = torch.from_numpy(rows)
        if self.device.type == "cuda":
            x = x.pin_memory()
        return x.to(self.device, non_blocking=True)

    def _ready(self, modality: str, x: Tensor) -> Tensor:
        if modality in self._stats:
            mean, std = self._stats[modality]
            return x.to(torch.float32).sub_(mean).div_(std)
        return x.to(torch.float32) if x.is_floating_point() else x.long()


def _broken(folder: Path, name: str, what: str) -> UserError:
    return UserError(
        f"{folder / name} {what}: prepare it again with "
        f"python scripts/prepare_data.py dataset={folder.name} --force"
    )
