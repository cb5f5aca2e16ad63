"""NumPy files from anywhere: plain numbers or one line that says why not."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from miles_repro.errors import UserError, one_line

# what numpy raises for damaged files, headers that lie about sizes among them
DAMAGED = (
    *(OSError, ValueError, EOFError, OverflowError, MemoryError, KeyError, SyntaxError),
    *(BadZipFile, zlib.error, NotImplementedError, TypeError, RecursionError),
)


def read_npy(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """The array of a .npy file. Raises UserError where it is none, or holds Python objects."""
    if not path.is_file():  # opening a pipe would wait for ever
        raise UserError(f"{path} is not a file")
    try:
        found = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read as an array: {reason(error)}") from None
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path} cannot be read as an array: it is an archive of several")
    return found


def read_npz(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Arrays of a .npz file by their names. Raises UserError where they cannot be had."""
    wanted = " and ".join(names)
    if not path.is_file():
        raise UserError(f"{path} is not a file")
    try:
        with np.load(path, allow_pickle=False) as found:
            return [found[name] for name in names]
    except (*DAMAGED, AttributeError) as error:  # AttributeError: a single array
        raise UserError(f"{path} must hold the arrays {wanted}: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """Why a file cannot be read, in words."""
    text = one_line(Exception(error))
    if "Object arrays" in text or "Python objects" in text or "pickle" in text:
        return "it holds Python objects, save numbers"
    return text or type(error).__name__
