"""The manifest of a prepared folder: hashes, fingerprint, and the check that nothing changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from miles_repro.data.arrays import read_npy, read_npz
from miles_repro.data.checks import check_parts, check_values
from miles_repro.errors import UserError

SCHEMA = 1
PARTS = ("train", "val", "test")
ROTATE = "rotate"
"""The split scheme every prepared set has beside its own: seed k also rotates who is held out."""


@dataclass(frozen=True)
class Card:
    """What the manifest says about a data set beyond its arrays."""

    name: str
    version: int  # raise it whenever the preparer would write other bytes from the same raw data
    task: str  # multiclass | multilabel | binary | regression
    classes: tuple[str, ...]
    source: str
    licence: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_table(folder: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """``{name: {sha256, bytes}}`` of files in ``folder``, sorted by name."""
    names = sorted(names)
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
        digests = list(pool.map(lambda name: sha256_of(folder / name), names))
    return {
        name: {"sha256": digest, "bytes": (folder / name).stat().st_size}
        for name, digest in zip(names, digests, strict=True)
    }


def fingerprint(version: int, files: Mapping[str, Mapping[str, Any]]) -> str:
    """SHA-256 over the preparer's version and the sorted (file name, sha256) pairs."""
    pairs = sorted((name, entry["sha256"]) for name, entry in files.items())
    return hashlib.sha256(json.dumps([version, pairs]).encode()).hexdigest()


def build_manifest(
    folder: Path,
    card: Card,
    modalities: Mapping[str, NDArray[Any]],
    labels: NDArray[Any],
    schemes: Mapping[str, Mapping[str, NDArray[np.int64]]],
    report: Mapping[str, Any],
    normalise: Mapping[str, Any],
    groups: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The manifest of the arrays, ``splits.npz`` and ``stats.npz`` that lie in ``folder``."""
    for name, array in modalities.items():
        if len(array) != len(labels):
            raise ValueError(f"{name} has {len(array)} rows, labels have {len(labels)}")
    counted = {
        scheme: {
            **{part: len(rows) for part, rows in parts.items()},
            "per_class": {
                part: _class_counts(labels[rows], len(card.classes)) for part, rows in parts.items()
            },
        }
        for scheme, parts in schemes.items()
    }
    arrays = [f"{name}.npy" for name in ("labels", *modalities)]
    arrays += ["groups.npy"] if groups else []
    files = file_table(folder, [*arrays, "splits.npz", "stats.npz"])
    return {
        "schema": SCHEMA,
        "name": card.name,
        "version": card.version,
        "source": card.source,
        "licence": card.licence,
        "parameters": dict(card.parameters),
        "modalities": {
            name: {"shape": list(array.shape[1:]), "dtype": str(array.dtype)}
            for name, array in modalities.items()
        },
        "task": card.task,
        "classes": list(card.classes),
        "rows": len(labels),
        "schemes": counted,
        "normalise": dict(normalise),
        "groups": groups,
        "files": files,
        "report": dict(report),
        "fingerprint": fingerprint(card.version, files),
    }


def part_sizes(manifest: Mapping[str, Any], scheme: str) -> dict[str, int]:
    """Rows of each part under a scheme; of ``rotate`` those of the scheme that it rotates."""
    fixed = next(iter(manifest["schemes"])) if scheme == ROTATE else scheme
    return {part: int(manifest["schemes"][fixed][part]) for part in PARTS}


def _class_counts(labels: NDArray[Any], classes: int) -> list[int]:
    if labels.dtype.kind == "f":  # regression has no classes
        return []
    if labels.ndim == 2:  # multilabel: how often each label is set
        return [int(n) for n in labels.sum(axis=0, dtype=np.int64)]
    return np.bincount(labels, minlength=classes).tolist()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder.

    Raises:
        UserError: it is absent, unreadable or of another schema.
    """
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no prepared data (no manifest.json)") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): prepare the data again") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise UserError(f"{path} is not a manifest of schema {SCHEMA}: prepare the data again")
    return manifest


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class _File(BaseModel):
    sha256: str
    bytes: int


class _Array(BaseModel):
    shape: list[int]
    dtype: str


class _Scheme(BaseModel):
    train: int
    val: int
    test: int


class _Manifest(BaseModel):
    """What a manifest must hold to be read; it may hold more."""

    version: int
    task: str
    classes: list[str]
    rows: int
    modalities: dict[Name, _Array]
    schemes: dict[str, _Scheme] = Field(min_length=1)
    files: dict[Name, _File]
    parameters: dict[str, Any]
    report: dict[str, Any]
    fingerprint: str


def check_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Entries of the right types and a fingerprint, part of every run id, that fits the files.

    Raises:
        UserError: names the first entry that is wrong.
    """
    path = folder / "manifest.json"
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"has a wrong entry ({where}: {first['msg'].lower()})") from None
    named = {f"{m}.npy" for m in ("labels", *manifest["modalities"])}
    lacking = {*named, "splits.npz", "stats.npz"} - manifest["files"].keys()
    if lacking:
        raise _damaged(path, f"does not list {min(lacking)}")
    if fingerprint(manifest["version"], manifest["files"]) != manifest["fingerprint"]:
        raise _damaged(path, "has a fingerprint that does not fit its files")


def verify(folder: Path) -> dict[str, Any]:
    """Check every count, shape, type and hash of a prepared folder against its manifest.

    Returns:
        The manifest.

    Raises:
        UserError: names the first file that does not agree and how.
    """
    manifest = read_manifest(folder)
    check_manifest(folder, manifest)
    _check_files(folder, manifest)
    _check_arrays(folder, manifest)
    _check_splits(folder, manifest)
    return manifest


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    recorded = manifest["files"]
    for name, entry in recorded.items():
        path = folder / name
        if not path.is_file():
            raise _damaged(path, "is missing")
        if path.stat().st_size != entry["bytes"]:
            raise _damaged(path, f"has {path.stat().st_size:,} bytes, not {entry['bytes']:,}")
    found = file_table(folder, list(recorded))
    for name, entry in recorded.items():
        if found[name]["sha256"] != entry["sha256"]:
            raise _damaged(folder / name, "has another sha256 than the manifest says")


def _check_arrays(folder: Path, manifest: Mapping[str, Any]) -> None:
    rows, classes = manifest["rows"], len(manifest["classes"])
    for modality, entry in manifest["modalities"].items():
        path = folder / f"{modality}.npy"
        array = read_npy(path, "r")
        if array.shape != (rows, *entry["shape"]) or array.dtype != np.dtype(entry["dtype"]):
            raise _damaged(path, f"holds {array.dtype} {array.shape}, not what the manifest says")
        check_values(path, array)
    path = folder / "labels.npy"
    labels = read_npy(path)
    check_values(path, labels)
    if manifest["task"] == "regression":
        if labels.shape != (rows,) or labels.dtype != np.float32:
            raise _damaged(path, f"holds {labels.dtype} {labels.shape}, not a number a row")
        return
    multilabel = manifest["task"] == "multilabel"
    if labels.shape != ((rows, classes) if multilabel else (rows,)):
        raise _damaged(path, f"has shape {labels.shape} for {rows:,} rows and {classes} classes")
    if len(labels) and not 0 <= labels.min() <= labels.max() <= (1 if multilabel else classes - 1):
        raise _damaged(path, "holds labels outside the list of classes")


def _check_splits(folder: Path, manifest: Mapping[str, Any]) -> None:
    path = folder / "splits.npz"
    for scheme, counts in manifest["schemes"].items():
        parts = read_npz(path, [f"{scheme}.{part}" for part in PARTS])
        sizes = {part: len(rows) for part, rows in zip(PARTS, parts, strict=True)}
        if sizes != {part: counts[part] for part in PARTS}:
            raise _damaged(path, f"has {sizes} in scheme {scheme}")
        together = np.concatenate(parts)
        if len(np.unique(together)) != len(together):
            raise _damaged(path, f"uses a row twice in scheme {scheme}")
        if len(together) and not 0 <= together.min() <= together.max() < manifest["rows"]:
            raise _damaged(path, f"names a row that does not exist in scheme {scheme}")
        if "table" in manifest["parameters"]:  # published sets may lack what they lack
            labels = read_npy(folder / "labels.npy")
            classes = tuple(manifest["classes"])
            check_parts(path, labels, classes, dict(zip(PARTS, parts, strict=True)))


def _damaged(path: Path, how: str) -> UserError:
    return UserError(f"{path} {how}: prepare the data again (prepare_data.py ... --force)")
