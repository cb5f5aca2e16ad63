"""Raw files from where their authors published them: size and licence first, resumable, checked.

A preparer says what there is as ``DOWNLOAD``: a :class:`Source`, or a line that says why there is
none and what to do. Size and hash of every file are asked from the source's own list of files, as
Zenodo (md5) and the Internet Archive (md5) publish it. Where one has no hash, the first download's
SHA-256 is kept beside the file and holds for later ones.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from miles_repro.data.progress import Progress
from miles_repro.errors import UserError, one_line

CHUNK = 2**20
TIMEOUT_S = 30


@dataclass(frozen=True)
class Source:
    """A few public files.

    page: for people; listing: address of the source's list of its files (JSON); files: their
    names; at: address of a file, with ``{name}``; licence: what its page says.
    """

    page: str
    listing: str
    files: tuple[str, ...]
    at: str
    licence: str


@dataclass(frozen=True)
class File:
    """One file as its source lists it. hash: ``md5:..``, None where none is published."""

    name: str
    size: int
    hash: str | None


def download(name: str, module: ModuleType, folder: Path) -> Path:
    """Fetch a data set's raw files into ``folder``, which may hold some or parts of them.

    Returns:
        The folder to give as ``raw=``.

    Raises:
        UserError: there is nothing to download, no connection, another hash, no space.
    """
    source = getattr(module, "DOWNLOAD", None)
    if not isinstance(source, Source):
        raise UserError(f"{name}: {source or 'nothing is to be downloaded: leave download= away'}")
    try:
        import pooch
        import requests
    except ImportError:
        raise UserError(
            "download=true needs the package pooch: pip install 'miles-repro[data]'"
        ) from None
    pooch.get_logger().setLevel("WARNING")
    try:
        files = _listed(source, requests.get(source.listing, timeout=TIMEOUT_S))
        size = sum(file.size for file in files)
        print(f"{name}: {len(files)} file(s), {_mb(size)}, from {source.page}", file=sys.stderr)
        print(f"{name}: licence: {source.licence}", file=sys.stderr, flush=True)
        _require_space(folder, sum(f.size for f in files if not (folder / f.name).is_file()))
        for file in files:
            pooch.retrieve(
                source.at.format(name=file.name),
                file.hash or _recorded(folder / file.name),
                file.name,
                folder,
                downloader=_Resumable(file, folder),
            )
            _record(folder / file.name, file.hash)
        return _unpacked(folder, files)
    except requests.RequestException as error:
        raise UserError(
            f"{name}: the download broke off ({one_line(error)[:200]}): "
            f"the same command goes on from there, or fetch the files from {source.page} yourself"
        ) from None
    except ValueError as error:  # pooch's word for another hash
        raise UserError(f"{name}: {one_line(error)[:300]}: run the same command again") from None
    except OSError as error:
        raise UserError(f"{name}: cannot write to {folder}: {error.strerror or error}") from None


def _listed(source: Source, answer: Any) -> list[File]:
    """The source's files as it lists them: Zenodo's record or the Internet Archive's metadata."""
    answer.raise_for_status()
    try:
        listed = answer.json()["files"]
        entries = {e.get("key") or e.get("filename") or e["name"]: e for e in listed}
        return [_file(name, entries[name]) for name in source.files]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{source.listing} does not list the files as expected ({one_line(error)[:100]}): "
            f"fetch them from {source.page} yourself, then raw=<folder>"
        ) from None


def _file(name: str, entry: Mapping[str, Any]) -> File:
    md5 = entry.get("checksum") or entry.get("md5")  # the former with or without "md5:"
    size = int(entry["size"] if "size" in entry else entry["filesize"])
    return File(name, size, f"md5:{str(md5).removeprefix('md5:')}" if md5 else None)


class _Resumable:
    """pooch's downloader that goes on from what an earlier one left in ``<file>.part``."""

    def __init__(self, file: File, folder: Path) -> None:
        self.file, self.part = file, folder / f"{file.name}.part"

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests

        have = self.part.stat().st_size if self.part.is_file() else 0
        have = have if have <= self.file.size else 0
        if have < self.file.size:
            asked = {"Range": f"bytes={have}-"} if have else {}
            with requests.get(url, headers=asked, stream=True, timeout=TIMEOUT_S) as answer:
                answer.raise_for_status()
                if answer.status_code != requests.codes.partial:  # it sends all, asked or not
                    have = 0
                self._write(answer, have)
        if (got := self.part.stat().st_size) != self.file.size:
            raise requests.ConnectionError(f"{got:,} of {self.file.size:,} bytes came")
        shutil.move(self.part, output_file)

    def _write(self, answer: Any, have: int) -> None:
        with (
            Progress(self.file.name, self.file.size, have) as bar,
            self.part.open("ab" if have else "wb") as out,
        ):
            for chunk in answer.iter_content(CHUNK):
                out.write(chunk)
                bar.advance(len(chunk))


def _recorded(path: Path) -> str | None:
    beside = path.with_name(f"{path.name}.json")
    return json.loads(beside.read_text())["hash"] if beside.is_file() else None


def _record(path: Path, published: str | None) -> None:
    """Keep which hash the file has, and whether its source published it."""
    import pooch

    found = published or f"sha256:{pooch.file_hash(str(path))}"
    text = json.dumps({"hash": found, "published": published is not None})
    path.with_name(f"{path.name}.json").write_text(text)


def _require_space(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(f"{folder}: {_mb(size)} are needed, {_mb(free)} are free")


def _unpacked(folder: Path, files: list[File]) -> Path:
    """``folder``, or where the files are one archive, what is in it."""
    if len(files) > 1 or not files[0].name.endswith(".tar.gz"):
        return folder
    archive = folder / files[0].name
    out = folder / files[0].name.removesuffix(".tar.gz")
    if not out.is_dir():
        partial = folder / f"{out.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        print(f"unpacking {archive}", file=sys.stderr, flush=True)
        try:
            with tarfile.open(archive) as tar:
                _extract(tar, partial)
        except (tarfile.TarError, EOFError) as error:
            raise UserError(f"{archive} cannot be unpacked: {one_line(error)[:200]}") from None
        partial.replace(out)
    inside = [path for path in out.iterdir() if path.is_dir()]
    return inside[0] if len(inside) == 1 and len(list(out.iterdir())) == 1 else out


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Files and folders only, nothing outside: early Pythons 3.11 have no filter that says so."""
    for member in tar.getmembers():
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.ExtractError(f"{member.name} is not a file inside the folder")
    safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    tar.extractall(folder, **safe)


def _mb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
