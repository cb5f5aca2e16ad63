"""Which recording goes with which image: seeded draws per class, no item on two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.luma_raw import Table
from miles_repro.data.media import BadFile, read_wav
from miles_repro.data.pool import in_parallel
from miles_repro.data.progress import Progress
from miles_repro.data.splits import Rows, draw_evenly, frozen_random, proportional
from miles_repro.data.writer import Preparation
from miles_repro.errors import UserError

PARTS = ("train", "val", "test")
Cell = tuple[str, str]  # class, side of the raw data
Waiting = dict[Cell, Rows]


def draw_pairs(
    prep: Preparation,
    audio: Table,
    image: Table,
    names: Sequence[str],
    sizes: Mapping[str, int],
    seed: int,
    reuse: bool,
) -> tuple[NDArray[np.int64], Rows]:
    """Draw train, val and test pairs with equal shares of every class.

    Where both tables have a test side, test pairs come from it and the others from the rest.
    Recordings that cannot be decoded are left out, reported, and replaced by others of the class.

    Returns:
        (recording, image) of each row, (N, 2), train rows first, then val, then test; labels (N,).

    Raises:
        UserError: too few items of a class and no ``reuse``; says what the raw data allow.
    """
    random = frozen_random(seed)
    sided = audio.sided and image.sided
    sides = {"train": ("train", "val"), "test": ("test",)} if sided else {"all": PARTS}
    counts = _class_counts(len(names), sizes)
    needed = {
        (name, side): sum(int(counts[part][at]) for part in parts)
        for at, name in enumerate(names)
        for side, parts in sides.items()
    }
    heard = _candidates(audio, needed, random)
    seen = _candidates(image, needed, random)
    for waiting, kind in ((heard, "recordings"), (seen, "images")):
        _must_suffice(waiting, needed, kind, reuse)
    heard = _readable(prep, audio.paths, heard, needed)
    _must_suffice(heard, needed, "readable recordings", reuse)
    columns: dict[str, list[NDArray[np.int64]]] = {part: [] for part in PARTS}
    for at, name in enumerate(names):
        for side, parts in sides.items():
            shares = [int(counts[part][at]) for part in parts]
            drawn = [
                _divide(waiting[name, side], shares, name, random) for waiting in (heard, seen)
            ]
            for part, left, right in zip(parts, *drawn, strict=True):
                columns[part].append(np.stack([left, right, np.full(len(left), at)], axis=1))
    rows = np.concatenate([random.permutation(np.concatenate(columns[part])) for part in PARTS])
    return rows[:, :2], rows[:, 2]


def _class_counts(classes: int, sizes: Mapping[str, int]) -> dict[str, Rows]:
    """Pairs of each class in each part, as equal as can be in every part and over all of them."""
    left = proportional(np.ones(classes, dtype=np.int64), sum(sizes.values()))
    counts = {}
    for part in PARTS:
        counts[part] = proportional(left, sizes[part])
        left = left - counts[part]
    return counts


def _candidates(table: Table, needed: Mapping[Cell, int], random: np.random.RandomState) -> Waiting:
    waiting = {}
    for name, side in needed:
        chosen = table.labels == name
        if side != "all":
            chosen &= table.test == (side == "test")
        waiting[name, side] = random.permutation(np.flatnonzero(chosen))
    return waiting


def _readable(
    prep: Preparation, paths: Sequence[Path], waiting: Waiting, needed: Mapping[Cell, int]
) -> Waiting:
    """The first items of each cell that can be decoded, at most as many as are needed."""
    good: dict[Cell, list[int]] = {cell: [] for cell in waiting}
    tried = dict.fromkeys(waiting, 0)
    while True:
        batch: list[tuple[Cell, int]] = []
        for cell, rows in waiting.items():
            missing = needed[cell] - len(good[cell])
            batch += [(cell, int(row)) for row in rows[tried[cell] : tried[cell] + missing]]
            tried[cell] += missing
        if not batch:
            return {cell: np.array(rows, dtype=np.int64) for cell, rows in good.items()}
        chunks = [batch[at : at + 64] for at in range(0, len(batch), 64)]
        tasks = [[paths[row] for _, row in chunk] for chunk in chunks]
        verdicts: dict[int, list[str]] = {}
        with Progress("luma: checking recordings", len(batch)) as bar:
            for at, reasons in in_parallel(_problems, tasks, prep.workers):
                verdicts[at] = reasons
                bar.advance(len(reasons))
        for at, chunk in enumerate(chunks):
            for (cell, row), reason in zip(chunk, verdicts[at], strict=True):
                if reason:
                    prep.skip(paths[row], reason)
                else:
                    good[cell].append(row)


def _problems(paths: Sequence[Path]) -> list[str]:
    """Worker: why each recording cannot be used; empty where it can."""
    reasons = []
    for path in paths:
        try:
            read_wav(path, 16_000)
            reasons.append("")
        except BadFile as bad:
            reasons.append(bad.reason)
    return reasons


def _must_suffice(waiting: Waiting, needed: Mapping[Cell, int], kind: str, reuse: bool) -> None:
    short = [cell for cell, rows in waiting.items() if len(rows) < (1 if reuse else needed[cell])]
    if not short:
        return
    (name, side), poorest = short[0], min(len(rows) for rows in waiting.values())
    where = "" if side == "all" else f" on the {side} side"
    few, total = len({name for name, _ in short}), len({name for name, _ in waiting})
    raise UserError(
        f"{few} of {total} classes have too few {kind}: {name} has {len(waiting[name, side]):,}"
        f"{where}, {needed[name, side]:,} are needed; the poorest class has {poorest:,}: give "
        f"smaller train=, val=, test=, other classes=, or reuse=true"
    )


def _divide(
    rows: Rows, shares: Sequence[int], name: str, random: np.random.RandomState
) -> list[Rows]:
    """Disjoint draws of ``shares`` items; with too few rows each part repeats its own."""
    own = np.array(shares)
    if len(rows) < own.sum():
        own = proportional(own, len(rows))
    if (own == 0).any():
        raise UserError(f"class {name} has {len(rows)} items: too few for train, val and test")
    parts = np.split(rows[: own.sum()], np.cumsum(own)[:-1])
    return [draw_evenly(part, n, random) for part, n in zip(parts, shares, strict=True)]
