"""The common writer of prepared folders: parallel, resumable, deterministic, put in place whole.

A preparer is one module with a function ``prepare(raw, out, **options)`` that does::

    card = Card(name="cremad", version=1, task="multiclass", classes=(...), source=..., licence=...,
                parameters={...every option of prepare under its own name...})
    with Preparation(out, card, workers) as prep:
        # index the raw folder; a file that cannot be used is named, never dropped in silence:
        prep.skip(path, "empty")                      # left out by a documented rule
        prep.refuse(path, "holds 2 channels")         # stops the preparation (after all are found)
        # decode: worker(item) -> {"image": uint8 (3, 224, 224), ...}; may raise Skip or Refuse
        kept = prep.fill(items, worker, {"image": ((3, 224, 224), "uint8")})
        prep.write("labels", labels[kept])            # small arrays are written at once
        prep.split("actor", train=rows, val=rows, test=rows)
        prep.group("actor", numbers, names)           # whose rows change sides together
        prep.normalise("image", axes=(1, 2))          # mean and std per channel, training rows
        prep.note("anything a reader of the manifest should know")
        return prep.finish()

Everything is written to ``<out>.partial/``; ``finish`` writes the manifest last and renames the
folder. A killed preparation goes on from the last finished chunk when run again with the same
inputs, and ends with the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeGuard, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import ArrayLike, NDArray

from miles_repro.data.disk import put_in_place, save_npz, writable
from miles_repro.data.filling import (
    Layout,
    Refuse,
    Sample,
    Skip,
    fill_chunk,
    plan_key,
    resume,
    settle,
)
from miles_repro.data.manifest import PARTS, Card, build_manifest
from miles_repro.data.pool import in_parallel
from miles_repro.data.progress import Progress
from miles_repro.data.statistics import mean_and_std
from miles_repro.errors import UserError
from miles_repro.machine import cores

__all__ = ["Card", "Preparation", "Refuse", "Skip"]

Item = TypeVar("Item")


class Preparation:
    """Writes one prepared folder; see the module's docstring for the way to use it.

    Raises:
        UserError: ``out`` cannot be written, the disk is full, or another process prepares it.
    """

    def __init__(self, out: Path, card: Card, workers: int | None = None) -> None:
        self.out, self.card, self.workers = Path(out), card, workers or cores()
        self.partial = self.out.with_name(self.out.name + ".partial")
        self._lock = FileLock(self.partial / ".lock")
        self._skipped: list[tuple[str, str]] = []
        self._refused: list[tuple[str, str]] = []
        self._notes: list[str] = []
        self._stand_in = False
        self._modalities: list[str] = []
        self._schemes: dict[str, dict[str, NDArray[np.int64]]] = {}
        self._groups: dict[str, Any] | None = None
        self._normalised: dict[str, tuple[int, ...] | tuple[ArrayLike, ArrayLike]] = {}

    def __enter__(self) -> Self:
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"another process is preparing {self.out}: wait for it") from None
        except OSError as error:
            raise UserError(
                f"cannot write {self.partial}: {error.strerror}: choose another folder (out=...)"
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def skip(self, file: object, reason: str) -> None:
        self._skipped.append((str(file), reason))

    def refuse(self, file: object, reason: str) -> None:
        self._refused.append((str(file), reason))

    def note(self, text: str) -> None:
        self._notes.append(text)

    def stand_in(self, why: str) -> None:
        """Mark the set as other data than the paper's: no published number is put beside it."""
        self._stand_in = True
        self.note(why)

    def check(self) -> None:
        """Raise one UserError if anything was refused so far; the full list goes to a file."""
        if not self._refused:
            return
        listing = self.partial / "refused.json"
        entries = [{"file": file, "reason": reason} for file, reason in sorted(self._refused)]
        with self.disk():
            listing.write_text(json.dumps(entries, indent=1), encoding="utf-8")
        file, reason = min(self._refused)
        raise UserError(
            f"{file}: {reason} ({len(entries)} file(s) refused, all listed in {listing}): "
            f"mend or remove them and run the same command again"
        )

    def write(self, name: str, array: NDArray[Any]) -> None:
        """Store a whole array at once: ``labels``, or a modality (rows first)."""
        with self.disk():
            np.save(self.partial / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
        self._declare(name)

    def fill(
        self,
        items: Sequence[Item],
        worker: Callable[[Item], Sample],
        arrays: Layout,
        chunk: int = 32,
        scratch: bool = False,
    ) -> NDArray[np.int64]:
        """Decode items in parallel, one row each, into memory-mapped arrays.

        Args:
            items: tuples of plain values and Paths. Their repr, and size and time of each Path,
                decide whether an earlier, interrupted filling may be continued.
            worker: picklable; item -> sample of exactly the shapes and types of ``arrays``.
                Skip leaves the item out; Refuse or an OSError stops the preparation at the end.
            arrays: modality -> (shape of one sample, type).
            chunk: items between two records of progress.
            scratch: the arrays are for the preparer's own use, not modalities: gone at the end.

        Returns:
            Positions of the items that were kept; row i of the arrays is ``items[kept[i]]``.

        Raises:
            UserError: refused items (all of them are looked at first), disk trouble.
        """
        self.check()
        starts = range(0, len(items), chunk)
        log = self.partial / ("+".join(arrays) + ".progress")
        rows = {name: self.partial / f"{name}.rows" for name in arrays}
        with self.disk():
            key = plan_key(self.card, items, arrays, chunk)
            done = resume(log, key, rows, arrays, len(items))
            todo = [n for n in range(len(starts)) if n not in done]
            call = partial(fill_chunk, worker, rows, arrays)
            tasks = [(starts[n], items[starts[n] : starts[n] + chunk]) for n in todo]
            before = sum(len(items[starts[n] : starts[n] + chunk]) for n in done)
            title = f"{self.card.name}: {', '.join(arrays)}"
            with log.open("a") as record, Progress(title, len(items), before) as bar:
                for at, (skipped, refused) in in_parallel(call, tasks, self.workers):
                    bar.advance(len(tasks[at][1]))
                    self._refused += [(file, reason) for _, file, reason in refused]
                    if not refused:  # a chunk with a refused file is looked at again next time
                        done[todo[at]] = skipped
                        record.write(json.dumps([todo[at], skipped]) + "\n")
                        record.flush()
            self.check()
            problems = sorted(problem for skipped in done.values() for problem in skipped)
            dropped = [at for at, _, _ in problems]
            kept = np.delete(np.arange(len(items), dtype=np.int64), dropped)
            for path in rows.values():
                settle(path, kept if dropped else None)
        self._skipped += [(file, reason) for _, file, reason in problems]
        if not scratch:
            for name in arrays:
                self._declare(name)
        return kept

    def array(self, name: str) -> NDArray[Any]:
        """A written array, memory-mapped for reading."""
        return np.load(self.partial / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def order(self, modalities: Sequence[str]) -> None:
        """The order of the modalities, where it is not that of their writing."""
        self._modalities.sort(key=list(modalities).index)

    def split(self, scheme: str, **parts: NDArray[np.integer]) -> None:
        """Declare a scheme's ``train``, ``val`` and ``test`` rows, in the order to be kept."""
        if set(parts) != set(PARTS):
            raise ValueError(f"a scheme has {PARTS}, not {tuple(parts)}")
        self._schemes[scheme] = {part: np.asarray(parts[part], dtype=np.int64) for part in PARTS}

    def group(self, name: str, of_row: NDArray[np.integer], names: Sequence[str] = ()) -> None:
        """Say which rows belong together (speaker, actor, recording): they change sides together.

        Args:
            name: what a group is.
            of_row: its number for every row, (N,).
            names: of the groups, by number, where a reader of the manifest would want them.
        """
        with self.disk():
            np.save(self.partial / "groups.npy", np.asarray(of_row, dtype=np.int64))
        self._groups = {"name": name, "names": list(names), "count": len(np.unique(of_row))}

    def normalise(
        self,
        modality: str,
        axes: tuple[int, ...] = (),
        constants: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> None:
        """Ask for mean and std of a modality in every scheme.

        Args:
            modality: one that was written.
            axes: axes of one sample that are averaged over beside the training rows; (1, 2) of
                (C, H, W) gives one value per channel, () one per element.
            constants: (mean, std) to store instead, broadcastable to one sample.
        """
        self._normalised[modality] = constants if constants is not None else axes

    def finish(self) -> dict[str, Any]:
        """Write splits, statistics and the manifest, and put the folder in place.

        Returns:
            The manifest.
        """
        self.check()
        with self.disk():
            save_npz(
                self.partial / "splits.npz",
                {
                    f"{s}.{p}": rows
                    for s, parts in self._schemes.items()
                    for p, rows in parts.items()
                },
            )
            save_npz(self.partial / "stats.npz", self._statistics())
            manifest = build_manifest(
                self.partial,
                self.card,
                {name: self.array(name) for name in self._modalities},
                self.array("labels"),
                self._schemes,
                {
                    "skipped": [{"file": f, "reason": r} for f, r in sorted(self._skipped)],
                    "notes": self._notes,
                    "stand_in": self._stand_in,
                },
                {
                    m: list(how) if _are_axes(how) else "constants"
                    for m, how in self._normalised.items()
                },
                self._groups,
            )
            wanted = {*manifest["files"], "manifest.json"}
            text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
            (self.partial / "manifest.json").write_text(text, encoding="utf-8")
            for path in self.partial.iterdir():
                if path.name not in wanted:
                    path.unlink()
            put_in_place(self.partial, self.out)
        return manifest

    def _statistics(self) -> dict[str, NDArray[np.float32]]:
        stats: dict[str, NDArray[np.float32]] = {}
        for scheme, parts in self._schemes.items():
            for modality, how in self._normalised.items():
                if _are_axes(how):
                    mean, std = mean_and_std(self.array(modality), parts["train"], how)
                else:
                    mean, std = (np.asarray(value, dtype=np.float32) for value in how)
                stats[f"{scheme}.{modality}.mean"] = mean
                stats[f"{scheme}.{modality}.std"] = std
        return stats

    def _declare(self, name: str) -> None:
        if name != "labels" and name not in self._modalities:
            self._modalities.append(name)

    def disk(self) -> AbstractContextManager[None]:
        """Turn a full or forbidden disk into a UserError."""
        return writable(self.partial)


def _are_axes(how: tuple[Any, ...]) -> TypeGuard[tuple[int, ...]]:
    return all(isinstance(axis, int) for axis in how)
