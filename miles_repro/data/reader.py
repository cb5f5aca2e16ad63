"""Reading a prepared data set: memory-mapped arrays in, normalised batches on the device out.

A prepared folder holds one ``<modality>.npy`` a modality, ``labels.npy``, ``splits.npz``,
``stats.npz`` and ``manifest.json`` (see ``writer.py``, which writes it).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from miles_repro import places
from miles_repro.data.arrays import DAMAGED
from miles_repro.data.manifest import (
    PARTS,
    ROTATE,
    check_manifest,
    read_manifest,
    sha256_of,
)
from miles_repro.data.splits import rotated
from miles_repro.data.statistics import mean_and_std
from miles_repro.errors import UserError

Batch = tuple[dict[str, Tensor], Tensor]
BATCH_BYTES = 64 * 2**20
"""Largest input of an evaluation batch."""
HASH_LIMIT = 512 * 2**20
"""Sets up to this many bytes are hashed before every first use; larger ones checked by size."""
_checked: set[tuple[str, int, int]] = set()


class PreparedData:
    """One prepared data set under one split scheme.

    ``scheme`` is one of the manifest's or ``rotate``, in which the seed also decides who is held
    out (``splits.rotated``, over the rows of the first scheme); statistics then come from that
    draw's training rows. Fixed schemes do not depend on the seed.

    Raises:
        UserError: no such scheme or modality, a file that is missing, damaged or not the one that
            the manifest describes.
    """

    def __init__(self, folder: Path, scheme: str, modalities: list[str], seed: int = 0) -> None:
        self.folder, self.scheme, self.seed = folder, scheme, seed
        self.manifest = read_manifest(folder)
        check_manifest(folder, self.manifest)
        schemes = self.manifest["schemes"]
        if scheme not in {*schemes, ROTATE}:
            raise UserError(
                f"{folder}: no split scheme {scheme!r}; it has {', '.join(sorted(schemes))} "
                f"and {ROTATE}"
            )
        missing = [m for m in modalities if m not in self.manifest["modalities"]]
        if missing:
            raise UserError(f"{folder}: no modality {', '.join(missing)} in this prepared set")
        self._check_files()
        self.arrays = {m: self._load(f"{m}.npy", mmap=True) for m in modalities}
        self.labels = self._load("labels.npy", mmap=False)
        known = "groups.npy" in self.manifest["files"]
        self.groups = self._load("groups.npy") if known else None
        self._splits = self._load("splits.npz")
        self._stats = self._load("stats.npz")

    def part(
        self, name: str, device: torch.device, resident_mb: int, fraction: float = 1.0
    ) -> Part:
        """``train``, ``val`` or ``test``; ``fraction`` keeps the first share of its rows."""
        rows = self.rows[name]
        rows = rows[: max(1, round(fraction * len(rows)))]
        labels = self.labels
        if self.manifest["task"] == "regression":  # in units of the training labels' spread
            seen = labels[self.rows["train"]].astype(np.float64)
            labels = ((labels - seen.mean()) / (seen.std() or 1)).astype(np.float32)
        return Part(self.arrays, labels, rows, self.statistics, device, resident_mb, self.groups)

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Rows of each part under the scheme and seed."""
        fixed = next(iter(self.manifest["schemes"])) if self.scheme == ROTATE else self.scheme
        parts = {name: self._splits[f"{fixed}.{name}"] for name in PARTS}
        if self.scheme != ROTATE:
            return parts
        pool = np.sort(np.concatenate(list(parts.values())))
        groups = None if self.groups is None else self.groups[pool]
        sizes = {name: len(rows) for name, rows in parts.items()}
        drawn = rotated(self.labels[pool], groups, sizes, self.seed)
        return {name: pool[rows] for name, rows in drawn.items()}

    @cached_property
    def statistics(self) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Modality -> mean and standard deviation of the scheme's training rows."""
        if self.scheme != ROTATE:
            return {
                m: (self._stats[f"{self.scheme}.{m}.mean"], self._stats[f"{self.scheme}.{m}.std"])
                for m in self.arrays
                if f"{self.scheme}.{m}.mean" in self._stats
            }
        fixed, found = next(iter(self.manifest["schemes"])), {}
        for m in self.arrays:
            if f"{fixed}.{m}.mean" not in self._stats:
                continue
            how = self.manifest.get("normalise", {}).get(m)
            if how is None:
                raise _broken(self.folder, "manifest.json", f"does not say how {m} is normalised")
            if how == "constants":
                found[m] = (self._stats[f"{fixed}.{m}.mean"], self._stats[f"{fixed}.{m}.std"])
            else:
                found[m] = mean_and_std(self.arrays[m], self.rows["train"], tuple(how))
        return found

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
        except DAMAGED as e:
            raise _broken(self.folder, name, f"cannot be read ({e})") from None


class Part:
    """One split: on the device as float32 where that fits, else there as stored (a CPU gains
    nothing from that copy), else memory-mapped.

    Where a batch comes from never changes its values: normalisation is the same element-wise
    (float(x) - mean) / std on the device. A part holds rows of its own split only, so that
    nothing which is given the training part can lead to a test row.

    Attributes:
        labels: of its samples, (N,) or (N, C).
        groups: group of each sample (recording, speaker, actor), int64 (N,); None where unknown.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        labels: NDArray[Any],
        rows: NDArray[np.int64],
        stats: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
        device: torch.device,
        resident_mb: int,
        groups: NDArray[np.int64] | None = None,
    ) -> None:
        self.device = device
        self.labels = torch.from_numpy(labels[rows]).to(device)
        self.groups = None if groups is None else torch.from_numpy(groups[rows]).to(device)
        self._values = {m: int(np.prod(a.shape[1:])) for m, a in arrays.items()}
        self._stats = {
            m: tuple(torch.from_numpy(np.array(s, np.float32)).to(device) for s in pair)
            for m, pair in stats.items()
        }
        self._resident: dict[str, Tensor] | None = None
        self._resident_as_stored = False
        self._stored: dict[str, NDArray[Any] | _Mapped] = {}
        values, limit = len(rows) * sum(self._values.values()), resident_mb * 2**20
        stored = sum(len(rows) * n * arrays[m].itemsize for m, n in self._values.items())
        if 4 * values <= limit:
            self._resident = {m: self._ready(m, self._moved(a[rows])) for m, a in arrays.items()}
        elif device.type != "cpu" and stored <= limit:
            self._resident = {m: self._moved(a[rows]) for m, a in arrays.items()}
            self._resident_as_stored = True
        else:
            self._stored = {
                m: _Mapped(a, rows) if isinstance(a, np.memmap) else a[rows]
                for m, a in arrays.items()
            }

    def __len__(self) -> int:
        return len(self.labels)

    def within_memory(self, size: int) -> int:
        """``size``, or the largest batch whose float32 input stays below BATCH_BYTES."""
        return max(1, min(size, BATCH_BYTES // (4 * sum(self._values.values()))))

    def batch(self, index: Tensor, only: str | None = None) -> Batch:
        """Samples ``index`` (B,) of this split: modality -> (B, ...) float32, and labels.

        ``only``: leave the other modalities out.
        """
        names = tuple(self._values) if only is None else (only,)
        at = index.to(self.device)
        if self._resident is not None:
            return self._gather(at, names)
        rows = index.numpy()
        x = {m: self._ready(m, self._moved(self._stored[m][rows])) for m in names}
        return x, self.labels.index_select(0, at)

    def batches(self, order: Tensor, size: int, only: str | None = None) -> Iterator[Batch]:
        """Batches of ``size`` in the given order, the last one smaller; nothing is dropped."""
        if self._resident is not None:
            names = tuple(self._values) if only is None else (only,)
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


class _Mapped:
    """Some rows of a memory-mapped file, which is opened for each read: holds no array of it."""

    def __init__(self, array: np.memmap[Any, Any], rows: NDArray[np.int64]) -> None:
        self._path, self._offset = Path(str(array.filename)), array.offset
        self._dtype, self._shape = array.dtype, array.shape
        self._rows = rows.copy()

    def __getitem__(self, at: NDArray[np.int64]) -> NDArray[Any]:
        array: NDArray[Any] = np.memmap(self._path, self._dtype, "r", self._offset, self._shape)
        return np.asarray(array[self._rows[at]])


def _broken(folder: Path, name: str, what: str) -> UserError:
    return UserError(
        f"{folder / name} {what}: prepare it again with "
        f"{places.command('prepare')} dataset={folder.name} --force"
    )
