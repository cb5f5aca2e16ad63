"""Seeded splits and pairings that stay the same for ever."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from miles_repro.errors import UserError

Rows = NDArray[np.int64]


def frozen_random(seed: int) -> np.random.RandomState:
    """A generator whose streams never change: those of ``default_rng`` may (NEP 19)."""
    return np.random.RandomState(seed)


def shuffled(rows: NDArray[np.integer], seed: int) -> Rows:
    """The same rows in an order fixed by the seed."""
    order = frozen_random(seed).permutation(len(rows))
    return np.asarray(rows, dtype=np.int64)[order]


def proportional(counts: NDArray[np.integer], total: int) -> Rows:
    """``total`` shared out in proportion to ``counts``, none above its count, by largest remainder.

    Ties go to the earlier entry. Needs ``0 <= total <= counts.sum()``.
    """
    exact: Rows = total * counts.astype(np.int64)  # integers, so no rounding decides a tie
    share: Rows = exact // max(int(counts.sum()), 1)
    remainder = exact - share * int(counts.sum())
    first = np.argsort(-remainder, kind="stable")[: total - int(share.sum())]
    share[first] += 1
    return share


def stratified_split(
    labels: NDArray[np.integer], sizes: Mapping[str, int], seed: int
) -> dict[str, Rows]:
    """Disjoint random parts of exactly ``sizes`` rows with the class shares of ``labels``.

    Args:
        labels: class of each row, (N,).
        sizes: rows of each part; what they leave of N stays unused.
        seed: fixes the draw.

    Returns:
        Part -> row numbers in random order.

    Raises:
        UserError: the parts need more rows than there are.
    """
    labels = np.asarray(labels)
    if sum(sizes.values()) > len(labels):
        wanted = " + ".join(f"{n:,} {part}" for part, n in sizes.items())
        raise UserError(f"{wanted} rows were asked for, but there are only {len(labels):,}")
    random = frozen_random(seed)
    waiting = [random.permutation(np.flatnonzero(labels == c)) for c in np.unique(labels)]
    parts: dict[str, Rows] = {}
    for part, size in sizes.items():
        shares = proportional(np.array([len(rows) for rows in waiting]), size)
        taken = [rows[:n] for rows, n in zip(waiting, shares, strict=True)]
        waiting = [rows[n:] for rows, n in zip(waiting, shares, strict=True)]
        parts[part] = random.permutation(np.concatenate(taken).astype(np.int64))
    return parts


def pair_by_label(
    first: NDArray[np.integer], second: NDArray[np.integer], per_class: int, seed: int
) -> tuple[Rows, Rows]:
    """``per_class`` pairs (row of ``first``, row of ``second``) of each class, at random.

    Rows of a class are used in random order without repetition; where a class has fewer than
    ``per_class``, all of them are used equally often (to within one). Pairs come shuffled.

    Raises:
        UserError: a class of ``first`` or ``second`` is empty on the other side.
    """
    missing = np.setxor1d(first, second)
    if len(missing):
        raise UserError(f"classes {missing.tolist()} are present in one modality only: cannot pair")
    random = frozen_random(seed)
    columns: list[list[Rows]] = [[], []]
    for label in np.unique(first):
        for column, labels in zip(columns, (first, second), strict=True):
            rows = np.flatnonzero(labels == label)
            rounds = -(-per_class // len(rows))
            drawn = np.concatenate([random.permutation(rows) for _ in range(rounds)])
            column.append(drawn[:per_class].astype(np.int64))
    order = random.permutation(per_class * len(columns[0]))
    return np.concatenate(columns[0])[order], np.concatenate(columns[1])[order]
