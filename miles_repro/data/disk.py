"""Writing prepared folders: a full disk is one line, and a finished folder comes in place whole."""

from __future__ import annotations

import errno
import shutil
import zipfile
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
    """Equal arrays give equal bytes, also under every Python: numpy.savez's are not the same."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(_Member(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


class _Member(zipfile.ZipInfo):
    """Dated 1980-01-01, its header as Python 3.11.4 and later write it (earlier: other bytes)."""

    def FileHeader(self, zip64: bool | None = None) -> bytes:
        self.create_version = self.extract_version = 45  # that of zip64
        header = bytearray(super().FileHeader(zip64))
        header[18:26] = b"\xff" * 8  # both sizes are in the extra field
        return bytes(header)


def put_in_place(new: Path, old: Path) -> None:
    """Rename a finished folder to its name, over an older one."""
    aside = old.with_name(old.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists():
        old.rename(aside)
    new.rename(old)
    shutil.rmtree(aside, ignore_errors=True)
