"""Anybody's data: a table with labels, and arrays or files for each modality."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data import table_files
from miles_repro.data.checks import check_parts, warn
from miles_repro.data.manifest import sha256_of
from miles_repro.data.splits import rotated, shuffled
from miles_repro.data.table_read import (
    LENGTHS,
    Table,
    check_modality,
    read_array,
    read_labels,
    read_split,
    read_table,
)
from miles_repro.data.writer import Card, Preparation
from miles_repro.errors import UserError

VERSION = 1
LIMITS = {
    "size": (1, 4096),
    "sample_rate": (1000, 1_000_000),
    "seconds": (0.05, 3600),
    "n_mels": (1, 512),
    "length": (1, 1_000_000),
    "vocab_size": (1, 1_000_000),
}
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
KNOWN = ("row", "label", "split", "group")
TASKS = ("auto", "multiclass", "multilabel", "binary", "regression")


def prepare(
    raw: Path | None,
    out: Path,
    *,
    table: str,
    arrays: str = "",
    task: str = "auto",
    classes: str = "",
    modalities: str = "",
    ignore: str = "",
    stand_in: str = "",
    seed: int = 0,
    size: int = 64,
    sample_rate: int = 16_000,
    seconds: float = 2.0,
    n_mels: int = 64,
    length: int = 256,
    vocab_size: int = 10_000,
    workers: int | None = None,
) -> dict[str, Any]:
    """Your own data: a table, a row a sample, with arrays or files for each modality.

    Columns of the table: ``label`` (a class; several with | between; a number), and if there are
    any ``split`` (train, val, test), ``group`` (speaker, patient: never on two sides), ``row`` (the
    row of the arrays, else in order) and a column of file paths for each modality made of files.
    Without ``split`` 60 / 20 / 20 % are drawn, stratified, or by whole groups.

    Args:
        table: csv, tsv or parquet file.
        arrays: folder of <modality>.npy, a row a sample; default: the table's folder.
        task: multiclass, multilabel, binary, regression, or auto: by what the labels are.
        classes: comma-separated names in order; default: all that occur.
        modalities: comma-separated names in order; default: all there are.
        ignore: comma-separated columns and arrays that are none.
        stand_in: why these are other data than the name says; every table then says stand-in.
        seed: of the draw of missing splits.
        size: side of pictures in pixels.
        sample_rate, seconds, n_mels: of recordings, as log mel spectrograms.
        length, vocab_size: of texts, in words.

    Raises:
        UserError: whatever is wrong with the table or a file, with row and file.
    """
    if task not in TASKS:
        raise UserError(f"task={task}: one of {', '.join(TASKS)}")
    settings = {
        "size": size,
        "sample_rate": sample_rate,
        "seconds": seconds,
        "n_mels": n_mels,
        "length": length,
        "vocab_size": vocab_size,
    }
    for name, value in settings.items():
        low, high = LIMITS[name]
        if not low <= value <= high:
            raise UserError(f"{name}={value} must be from {low:,} to {high:,}")
    rows = read_table(Path(table))
    task, labels, names = read_labels(rows, task, _names(classes))
    groups = _groups(rows)
    parts = read_split(rows)
    scheme = "given" if parts else "drawn"
    parts = parts or _draw(rows, labels, groups, seed)
    notes = check_parts(rows.path, labels, names, parts) + _straddling(groups, parts)
    found = _array_files(rows, arrays)
    order = _order(rows, found, _names(modalities), _names(ignore))
    paths = {m: found[m] for m in order if m in found}
    values = _arrays(rows, paths)
    kinds = {m: table_files.kind_of(rows, m) for m in order if m not in paths}
    files = {m: table_files.find_files(rows, m) for m in kinds}
    tokens: dict[str, int] = {}
    for m in order:
        if kinds.get(m) == "text":
            values[m], words = table_files.read_texts(files[m], parts["train"], settings)
            tokens[m] = table_files.vocabulary_size(words)
        elif m not in files and values[m].dtype.kind == "i":
            tokens[m] = int(values[m].max()) + 1
    card = Card(
        name=out.name,
        version=VERSION,
        task=task,
        classes=names,
        source=f"the user's own: {rows.path.name}",
        licence="the user's to state",
        parameters={
            **settings,
            "table": table,
            "arrays": arrays,
            "classes": classes,
            "modalities": modalities,
            "ignore": ignore,
            "stand_in": stand_in,
            "seed": seed,
            "tokens": tokens,
            "sources": _digests(rows, paths, files),
        },
    )
    with Preparation(out, card, workers) as prep:
        table_files.fill(prep, files, kinds, settings)
        for m in order:
            if kinds.get(m, "text") == "text":
                prep.write(m, values[m])
            axes = _axes(prep.array(m))
            if axes is not None:
                prep.normalise(m, axes=axes)
        prep.order(order)
        prep.write("labels", labels)
        prep.split(scheme, **{p: shuffled(r, seed) for p, r in parts.items()})
        if groups is not None:
            prep.group("group", groups[0], groups[1])
        if stand_in:
            prep.stand_in(stand_in)
        for note in notes + warn({m: prep.array(m) for m in order}, parts):
            prep.note(note)
        return prep.finish()


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _axes(array: NDArray[Any]) -> tuple[int, ...] | None:
    """What is averaged over for normalisation: pixels of a channel, steps; ids have none."""
    if array.dtype.kind == "i":
        return None
    return {1: (), 2: (0,), 3: (1, 2)}[array.ndim - 1]


def _groups(table: Table) -> tuple[NDArray[np.int64], list[str]] | None:
    if "group" not in table.columns:
        return None
    for row, name in enumerate(table.columns["group"]):
        if not name:
            raise UserError(f"{table.at(row)}: group is empty")
    names, of_row = np.unique(np.array(table.columns["group"]), return_inverse=True)
    return of_row.astype(np.int64), names.tolist()


def _draw(
    table: Table, labels: NDArray[Any], groups: tuple[Any, Any] | None, seed: int
) -> dict[str, NDArray[np.int64]]:
    held_out = {part: round(share * len(table)) for part, share in SHARES.items() if share < 0.5}
    sizes = {"train": len(table) - sum(held_out.values()), **held_out}
    try:
        return rotated(labels, None if groups is None else groups[0], sizes, seed)
    except UserError as error:
        raise UserError(f"{table.path}: no column split, and {error}") from None


def _straddling(groups: tuple[Any, Any] | None, parts: Mapping[str, Any]) -> list[str]:
    if groups is None:
        return []
    sides = [set(groups[0][rows].tolist()) for rows in parts.values()]
    twice = (sides[0] & sides[1]) | (sides[0] & sides[2]) | (sides[1] & sides[2])
    return [f"warning: {len(twice):,} group(s) have rows in more than one part"] if twice else []


def sources(
    *, table: str, arrays: str = "", modalities: str = "", ignore: str = ""
) -> dict[str, str]:
    """SHA-256 of what a set of these options is made of: table, arrays, each column's files."""
    rows = read_table(Path(table))
    paths = _array_files(rows, arrays)
    order = _order(rows, paths, _names(modalities), _names(ignore))
    files = {m: table_files.find_files(rows, m) for m in order if m not in paths}
    return _digests(rows, {m: paths[m] for m in order if m in paths}, files)


def _digests(
    table: Table, arrays: Mapping[str, Path], files: Mapping[str, list[Path]]
) -> dict[str, str]:
    beside = [path.with_name(path.stem + LENGTHS) for path in arrays.values()]
    alone = [table.path, *arrays.values(), *(path for path in beside if path.is_file())]
    found = {str(path): sha256_of(path) for path in alone}
    for m, column in files.items():
        digest = hashlib.sha256("".join(sha256_of(path) for path in column).encode())
        found[f"a file of column {m} of {table.path}"] = digest.hexdigest()
    return found


def _array_files(table: Table, arrays: str) -> dict[str, Path]:
    """Name -> file of every array that may be a modality."""
    folder = Path(arrays) if arrays else table.path.parent
    if not folder.is_dir():
        raise UserError(f"arrays={folder} is not a folder")
    found = sorted(folder.glob("*.npy"))
    return {path.stem: path for path in found if not path.name.endswith(LENGTHS)}


def _arrays(table: Table, paths: Mapping[str, Path]) -> dict[str, NDArray[Any]]:
    """The arrays in the order of the table's rows."""
    values = {m: read_array(path, len(table)) for m, path in paths.items()}
    at = _array_rows(table)
    return values if at is None else {m: array[at] for m, array in values.items()}


def _array_rows(table: Table) -> NDArray[np.int64] | None:
    """Column ``row``: which row of the arrays belongs to each row of the table."""
    if "row" not in table.columns:
        return None
    texts = [text.removesuffix(".0") for text in table.columns["row"]]  # parquet's numbers
    seen: set[int] = set()
    for row, text in enumerate(texts):
        digits = text.isdecimal() and len(text) < 19
        if not digits or int(text) >= len(texts) or int(text) in seen:
            raise UserError(
                f"{table.at(row)}: row={text!r} must be a number from 0 to {len(texts) - 1}, once"
            )
        seen.add(int(text))
    at = np.array([int(text) for text in texts], dtype=np.int64)
    return None if (at == np.arange(len(at))).all() else at


def _order(
    table: Table, arrays: Mapping[str, Path], asked: list[str], ignore: list[str]
) -> list[str]:
    """The modalities: columns of files and arrays, those asked for or all but the ignored."""
    columns = [name for name in table.columns if name not in KNOWN]
    known = [name for name in [*columns, *arrays] if name not in ignore]
    for name in asked:
        if name not in known or asked.count(name) > 1:
            raise UserError(f"modalities: {name!r} is not one (once) of {', '.join(known)}")
    order = asked or known
    for name in order:
        if name in columns and name in arrays:
            raise UserError(f"{table.path}: {name} is a column of files and an array: rename one")
        check_modality(arrays.get(name, f"{table.path} line 1"), name)
    if not order:
        raise UserError(
            f"{table.path}: no modality: no <name>.npy in arrays=<folder>, no column of file names"
        )
    return order
