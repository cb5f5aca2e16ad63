"""A user's table and arrays, read and refused with file and row where they cannot be meant so."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.arrays import read_npy
from miles_repro.data.checks import check_tokens, check_values
from miles_repro.data.manifest import PARTS
from miles_repro.errors import UserError, one_line

MODALITY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
RESERVED = {"labels", "groups", "fused", "row", "label", "split", "group", "delta"}
YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "nan", "inf"}
"""No strings where a configuration or a command line holds them bare."""
LENGTHS = ".lengths.npy"
MOST_TOKENS = 10_000_000
COARSEST = 1e-4
"""What rounding to float32 may take from the labels of a regression, of their deviation."""


@dataclass
class Table:
    """Columns as text, and the line of the file that each row comes from."""

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def at(self, row: int) -> str:
        return f"{self.path} line {self.lines[row]}"


def read_table(path: Path) -> Table:
    """A csv (comma; .tsv: tab) or parquet file with a header.

    Raises:
        UserError: no such file, not text in UTF-8, ragged lines, no row, no column label.
    """
    if not path.is_file():
        raise UserError(f"table={path} is not a file")
    table = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    if "label" not in table.columns:
        raise UserError(f"{path} has no column label: it has {', '.join(table.columns)}")
    if not len(table):
        raise UserError(f"{path} has a header and no row")
    return table


def _read_csv(path: Path) -> Table:
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            header = [name.strip() for name in next(reader, [])]
            for values in reader:
                if not values:  # a blank line
                    continue
                if len(values) != len(header):
                    raise UserError(
                        f"{path} line {reader.line_num}: {len(values)} values under "
                        f"{len(header)} columns"
                    )
                rows.append([value.strip() for value in values])
                lines.append(reader.line_num)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not text in UTF-8 after line {len(lines) + 1} ({error.reason}): save it so"
        ) from None
    except (csv.Error, OSError) as error:
        raise UserError(f"{path} line {len(lines) + 2}: not readable as csv ({error})") from None
    twice = [name for name, n in Counter(header).items() if n > 1 or not name]
    if not header or twice:
        raise UserError(f"{path} line 1: columns without or with the same name: {twice}")
    columns = {name: [row[at] for row in rows] for at, name in enumerate(header)}
    return Table(path, columns, lines)


def _read_parquet(path: Path) -> Table:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise UserError(f"{path}: parquet needs the package pyarrow: pip install pyarrow") from None
    except Exception as error:  # pyarrow's own errors
        raise UserError(f"{path}: not readable as parquet ({one_line(error)})") from None
    columns = {str(name): [_cell(v) for v in frame[name]] for name in frame.columns}
    return Table(path, columns, list(range(2, len(frame) + 2)))


def _cell(value: Any) -> str:
    """Of a parquet file, as a csv would hold it; several labels may be a list."""
    import pandas as pd

    if isinstance(value, (list, np.ndarray)):
        return "|".join(map(str, value))
    return "" if pd.isna(value) else str(value)


def read_labels(
    table: Table, task: str, known: Sequence[str]
) -> tuple[str, NDArray[Any], tuple[str, ...]]:
    """Task, labels and class names of the column ``label``.

    ``task`` ``auto``: a ``|`` anywhere means multilabel, mostly numbers of which one is not whole
    regression, else classes. ``known``: the class names, where not all that occur are right.
    """
    texts = table.columns["label"]
    numbers = [_number(text) for text in texts]
    if task == "auto":
        found = [n for n in numbers if n is not None]
        broken = 2 * len(found) > len(texts) and not all(n.is_integer() for n in found)
        task = (
            "multilabel"
            if any("|" in text for text in texts)
            else "regression"
            if broken
            else "multiclass"
        )
    for row, (text, number) in enumerate(zip(texts, numbers, strict=True)):
        if not text and task != "multilabel":
            raise UserError(f"{table.at(row)}: label is empty")
        if task == "regression" and (number is None or not np.isfinite(number)):
            raise UserError(f"{table.at(row)}: label {text!r} is not a finite number")
    if task == "regression":
        return task, _float32(table, np.array(numbers)), ()
    sets = [
        [name.strip() for name in text.split("|")] if task == "multilabel" else [text]
        for text in texts
    ]
    names = set().union(*sets) - {""}
    classes = tuple(known) or tuple(sorted(names, key=_by_number))
    position = {name: at for at, name in enumerate(classes)}
    labels = np.zeros((len(table), len(classes)), dtype=np.uint8)
    for row, names_of_row in enumerate(sets):
        for name in names_of_row:
            if name in position:
                labels[row, position[name]] = 1
            elif name or task != "multilabel":
                raise UserError(
                    f"{table.at(row)}: label {name!r} is not one of {', '.join(classes)}"
                )
    if len(classes) < 2 or (task == "binary" and len(classes) != 2):
        raise UserError(f"{table.path}: {task} labels need 2 classes, there are {len(classes)}")
    if task != "multilabel" and 3 * len(classes) > len(table):
        raise UserError(
            f"{table.path}: {len(classes):,} classes in {len(table):,} rows: too few of each "
            "(numbers? then add task=regression)"
        )
    return task, labels if task == "multilabel" else labels.argmax(axis=1), classes


def _float32(table: Table, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        stored = numbers.astype(np.float32)
    beyond = np.flatnonzero(~np.isfinite(stored))
    if len(beyond):
        row = int(beyond[0])
        raise UserError(f"{table.at(row)}: label {numbers[row]:g} is beyond float32: rescale")
    if np.abs(stored - numbers).max() > COARSEST * numbers.std() > 0:
        raise UserError(
            f"{table.path}: labels from {numbers.min():.10g} to {numbers.max():.10g} are too "
            "close to each other for float32: subtract an offset"
        )
    return stored


def _by_number(name: str) -> tuple[float, str]:
    number = _number(name)
    return (number if number is not None and np.isfinite(number) else 0.0), name


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def read_split(table: Table) -> dict[str, NDArray[np.int64]] | None:
    """Rows of train, val and test as the column ``split`` says; None without one."""
    if "split" not in table.columns:
        return None
    of_row = table.columns["split"]
    for row, name in enumerate(of_row):
        if name not in PARTS:
            raise UserError(f"{table.at(row)}: split {name!r} is none of train, val, test")
    return {part: np.flatnonzero(np.array(of_row) == part) for part in PARTS}


def check_modality(place: object, name: str) -> None:
    """Raises UserError where no modality can have this name."""
    if name in RESERVED or name.lower() in YAML_WORDS:
        rule = "that word has another meaning"
    elif MODALITY.fullmatch(name):
        return
    else:
        rule = "letters, digits and _ only, a letter first"
    raise UserError(
        f"{place}: {name!r} cannot name a modality: {rule}; rename it, or leave it out with "
        f"ignore={name}"
    )


def read_array(path: Path, rows: int) -> NDArray[Any]:
    """One modality, a row for each row of the table, as it will be stored.

    Floats become float32 unless float16; (N, T, D) floats are sequences, whose lengths may lie in
    ``<m>.lengths.npy`` beside: steps behind a length become NaN. Integers (N, L) are token ids
    (int32), bytes and truth values (N, ...) pictures (N, C, H, W), (N, H, W) or vectors.

    Raises:
        UserError: unreadable, Python objects, another type, number of rows or axes, bad values.
    """
    array = read_npy(path, "r")
    if array.ndim < 1 or len(array) != rows:
        raise UserError(f"{path} holds {array.shape[:1]} rows, the table has {rows:,}")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim > 4 or 0 in array.shape:
        raise UserError(f"{path}: samples of shape {array.shape[1:]} are not understood")
    kind = array.dtype.kind
    if kind == "f":
        if array.dtype != np.float16:
            with np.errstate(over="ignore"):
                array = array.astype(np.float32, copy=False)
        array = _padded(path, array)
        check_values(path, array)
    elif array.dtype == np.uint8 or kind == "b":
        array = array.astype(np.uint8, copy=False)
        array = array[:, None] if array.ndim == 3 else array
    elif kind in "iu" and array.ndim == 2:
        check_tokens(path, array)
        if int(array.max()) > MOST_TOKENS:
            raise UserError(
                f"{path}: token ids beyond {MOST_TOKENS:,}, and an embedding has a row for each: "
                "number them from 1 (numbers of another kind? save float32)"
            )
        array = array.astype(np.int32)
    else:
        raise UserError(
            f"{path}: {array.dtype} of shape {array.shape} is not understood: save float32, "
            "uint8 pictures, or integer token ids (rows, length)"
        )
    return array


def _padded(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    beside = path.with_name(path.name.removesuffix(".npy") + LENGTHS)
    if not beside.is_file():
        return array
    lengths = read_npy(beside, "r")
    if array.ndim != 3 or lengths.shape != array.shape[:1] or lengths.dtype.kind not in "iu":
        raise UserError(f"{beside} must hold a whole number for each of {len(array):,} sequences")
    bad = np.flatnonzero((lengths < 1) | (lengths > array.shape[1]))
    if len(bad):
        raise UserError(f"{beside} row {bad[0]}: length {lengths[bad[0]]} of {array.shape[1]}")
    array = np.array(array)
    array[np.arange(array.shape[1]) >= lengths[:, None]] = np.nan
    return array
