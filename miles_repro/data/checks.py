"""What prepared arrays, labels and parts must be: at preparation and for ``--verify`` alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.errors import UserError

BLOCK_BYTES = 64 * 2**20
Parts = Mapping[str, NDArray[np.int64]]


def blocks(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """(first row, rows) of an array in pieces of bounded size."""
    per_block = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
    for at in range(0, len(array), per_block):
        yield at, np.asarray(array[at : at + per_block])


def check_values(path: Path, array: NDArray[Any]) -> None:
    """Every number is finite; sequences (N, T, D) may end in steps that are NaN throughout.

    Raises:
        UserError: names the file and the first row that is not.
    """
    if array.dtype.kind != "f":
        return
    for first, values in blocks(array):
        bad = ~np.isfinite(values)
        if not bad.any():
            continue
        if array.ndim == 3:
            padding = np.isnan(values).all(axis=2)
            trailing = np.logical_and.accumulate(padding[:, ::-1], axis=1)[:, ::-1]
            bad &= ~trailing[:, :, None]
            empty = np.flatnonzero(trailing.all(axis=1))
            if len(empty):
                raise UserError(f"{path} row {first + empty[0]}: a sequence without a step")
        of_row = bad.reshape(len(bad), -1)
        rows = np.flatnonzero(of_row.any(axis=1))
        if len(rows):
            value = values.reshape(len(bad), -1)[rows[0]][of_row[rows[0]]][0]
            raise UserError(
                f"{path} row {first + rows[0]}: holds {value} ({len(rows):,} such row(s) there): "
                "mend or leave out these rows"
            )


def check_tokens(path: Path, array: NDArray[Any]) -> None:
    """Token ids are not negative. Raises UserError with file and row."""
    for first, values in blocks(array):
        bad = np.flatnonzero((values < 0).any(axis=1))
        if len(bad):
            raise UserError(f"{path} row {first + bad[0]}: a negative token id")


def check_parts(
    path: Path, labels: NDArray[Any], classes: tuple[str, ...], parts: Parts
) -> list[str]:
    """No part is empty, and every class occurs in it.

    Returns:
        Warnings: labels of a multilabel set that do not occur in validation or test.

    Raises:
        UserError: names the file, the part and the class.
    """
    warnings = []
    for part, rows in parts.items():
        if not len(rows):
            raise UserError(f"{path}: no row for {part}: train, val and test need some each")
        if labels.dtype.kind == "f":
            if labels[rows].min() == labels[rows].max():
                raise UserError(f"{path}: all labels of {part} are {labels[rows][0]}")
            continue
        if labels.ndim == 2:
            counts = labels[rows].sum(axis=0)
        else:
            counts = np.bincount(labels[rows], minlength=len(classes))
        empty = [name for name, n in zip(classes, counts, strict=True) if not n]
        if empty and labels.ndim == 2 and part != "train":
            warnings.append(f"warning: no {part} row has the label {', '.join(empty)}")
        elif empty:
            raise UserError(
                f"{path}: no {part} row of class {', '.join(empty[:5])} ({len(empty)} in all): "
                "leave the class out or choose other rows for the parts"
            )
    return warnings


def warn(modalities: Mapping[str, NDArray[Any]], parts: Parts) -> list[str]:
    """What is legal and looks like a mistake: constant modalities, samples on two sides."""
    found = []
    for name, array in modalities.items():
        first = np.asarray(array[:1])
        if all(((rows == first) | (rows != rows)).all() for _, rows in blocks(array)):
            kind = "zero" if not np.any(first) else "the same in every row"
            found.append(f"warning: modality {name} is {kind}")
    of_row = _digests(modalities)
    seen: dict[bytes, str] = {}
    twice = 0
    for part, rows in parts.items():
        own = {of_row[row] for row in rows}
        twice += sum(of_row[row] in seen for row in rows)
        seen.update(dict.fromkeys(own - seen.keys(), part))
    if twice:
        found.append(f"warning: {twice:,} row(s) of val or test also occur in an earlier part")
    return found


def _digests(modalities: Mapping[str, NDArray[Any]]) -> list[bytes]:
    """A hash of each row over all modalities."""
    hashes = [hashlib.blake2b(digest_size=16) for _ in next(iter(modalities.values()))]
    for array in modalities.values():
        for first, rows in blocks(array):
            for digest, row in zip(hashes[first:], rows, strict=False):
                digest.update(np.ascontiguousarray(row).tobytes())
    return [digest.digest() for digest in hashes]
