"""Writing prepared folders: a full disk is one line, and a finished folder comes in place whole."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.errors import UserError

# None: numpy.save on a full disk raises an OSError without a number
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, None}


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn a full or forbidden disk into a UserError."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise UserError(
            f"cannot write {folder}: {error.strerror or error}: free space or choose "
            f"another folder (out=...); what is done so far is kept"
        ) from None


def save_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Equal arrays give equal bytes: numpy dates every member 1980-01-01."""
    np.savez(path, allow_pickle=False, **arrays)


def put_in_place(new: Path, old: Path) -> None:
    """Rename a finished folder to its name, over an older one."""
    aside = old.with_name(old.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)
