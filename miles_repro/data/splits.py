"""Seeded splits and pairings that stay the same for ever."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

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


def draw_evenly(rows: Rows, n: int, random: np.random.RandomState) -> Rows:
    """``n`` of ``rows`` in random order; where n is larger, each equally often to within one."""
    rounds = -(-n // len(rows))
    return np.concatenate([random.permutation(rows) for _ in range(rounds)])[:n]


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
            column.append(draw_evenly(np.flatnonzero(labels == label), per_class, random))
    order = random.permutation(per_class * len(columns[0]))
    return np.concatenate(columns[0])[order], np.concatenate(columns[1])[order]


def rotated(
    labels: NDArray[Any], groups: Rows | None, sizes: Mapping[str, int], seed: int
) -> dict[str, Rows]:
    """Another ``train``, ``val`` and ``test`` for every seed: the split as a source of variance.

    With groups (speakers, actors, recordings) whole groups change sides. They are dealt to folds,
    the largest first, each to the fold with the fewest rows; there are as many folds as make one
    of them about as large as a held-out part of ``sizes``, at most one a group. Seed k tests on
    the k-th fold from the end and validates on the one before it; after a whole round the
    distance between the two grows by one. Without groups: stratified draws of ``sizes`` rows.

    Args:
        labels: (N,) classes or numbers, or (N, C) label sets; numbers are stratified by tenths,
            label sets not at all.
        groups: group of each row, (N,).
        sizes: rows of the three parts of the fixed scheme that is rotated.
        seed: fixes the draw.

    Returns:
        Part -> row numbers in random order.

    Raises:
        UserError: fewer than three groups.
    """
    if groups is None:
        return stratified_split(strata(labels), sizes, seed)
    names, of_group = np.unique(groups, return_counts=True)
    if len(names) < 3:
        raise UserError(f"{len(names)} group(s) cannot rotate: train, val and test need one each")
    held_out = max(1.0, (sizes["val"] + sizes["test"]) / 2)
    count = min(len(names), max(3, round(len(groups) / held_out)))
    if count == len(names):
        fold_of = np.arange(count)
    else:
        fold_of = np.empty(len(names), dtype=np.int64)
        waiting = [(0, fold) for fold in range(count)]  # a heap of (rows so far, fold)
        for at in np.argsort(-of_group, kind="stable"):
            rows, fold = heapq.heappop(waiting)
            fold_of[at] = fold
            heapq.heappush(waiting, (rows + int(of_group[at]), fold))
    of_row = fold_of[np.searchsorted(names, groups)]
    test = (count - 1 - seed) % count
    val = (test - 1 - (seed // count) % (count - 1)) % count
    sides = {"train": ~np.isin(of_row, [val, test]), "val": of_row == val, "test": of_row == test}
    return {part: shuffled(np.flatnonzero(inside), seed) for part, inside in sides.items()}


def strata(labels: NDArray[Any]) -> Rows:
    """What a draw is stratified by: the class, a number's tenth, nothing for label sets. (N,)."""
    if labels.ndim > 1:
        return np.zeros(len(labels), dtype=np.int64)
    if labels.dtype.kind == "f":
        edges = np.quantile(labels, np.linspace(0.1, 0.9, 9))
        return np.searchsorted(edges, labels).astype(np.int64)
    return labels.astype(np.int64)


def grouped_split(
    labels: Rows, groups: Rows, sizes: Mapping[str, int], seed: int
) -> dict[str, Rows]:
    """Stratified ``train`` and ``val`` rows such that no group has rows in both.

    Groups go to validation in random order while they fit; where the exact size needs it, the rest
    of one more group stays unused.

    Raises:
        UserError: a class leaves too few rows for training.
    """
    random = frozen_random(seed)
    classes, counts = np.unique(labels, return_counts=True)
    val_shares = proportional(counts, sizes["val"])
    train_shares = proportional(counts - val_shares, sizes["train"])
    pairs = np.unique(np.stack([groups, labels]), axis=1)[0]
    mixed = pairs[:-1][pairs[1:] == pairs[:-1]]  # groups of several classes stay in training
    train, val = [], []
    for label, n_val, n_train in zip(classes, val_shares, train_shares, strict=True):
        members = np.flatnonzero(labels == label)
        names, of_group = np.unique(groups[members], return_counts=True)
        order = random.permutation(np.flatnonzero(~np.isin(names, mixed)))
        taken, filled = [], 0
        for at in order:
            if filled + of_group[at] <= n_val:
                taken.append(at)
                filled += of_group[at]
        left = np.setdiff1d(order, taken)
        if filled < n_val and len(left):  # the smallest that was too large gives what is missing
            taken.append(left[np.argmin(of_group[left])])
        inside = np.isin(groups[members], names[taken])
        if inside.sum() < n_val or (~inside).sum() < n_train:
            raise UserError(
                f"class {label} has {inside.sum():,} rows for validation and {(~inside).sum():,} "
                f"for training that share no audio, {n_val:,} and {n_train:,} are needed"
            )
        val.append(random.permutation(members[inside])[:n_val])
        train.append(random.permutation(members[~inside])[:n_train])
    return {
        "train": random.permutation(np.concatenate(train)),
        "val": random.permutation(np.concatenate(val)),
    }
