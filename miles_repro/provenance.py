"""Which sources a run was made of: edited code must not pass as done already."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from miles_repro.config import Config
from miles_repro.places import PACKAGE

IMPORT = re.compile(r"^\s*(?:from|import) +(miles_repro[\w.]*)(?: +import +(\w+))?", re.MULTILINE)
CORE = ("miles_repro.loop", "miles_repro.training")
SILENT = tuple(
    f"miles_repro.{room}"
    for room in ("api", "cost", "errors", "machine", "places", "provenance", "records", "tracking")
)
"""Rooms of this package that no number passes through: what they keep, say or count may change."""


def code(config: Config) -> dict[str, str]:
    """Module -> SHA-256 of its file: the loop, the run's parts and all that they import here."""
    found: dict[str, str] = {}
    waiting = [*CORE, *_parts(config)]
    while waiting:
        module = waiting.pop()
        if module in found or module.startswith(SILENT) or (file := _file(module)) is None:
            continue
        digest, imports = _read(file, file.stat().st_mtime_ns)
        found[module] = digest
        waiting += imports
    return dict(sorted(found.items()))


def changed(recorded: Mapping[str, str] | None, config: Config) -> tuple[str, ...]:
    """Modules that are not what they were when the run was recorded."""
    if not recorded:
        return ()
    now = code(config)
    return tuple(sorted(m for m in recorded.keys() | now.keys() if recorded.get(m) != now.get(m)))


def today(module: str) -> str | None:
    """SHA-256 of a module of this package as it is now, found by its name: nothing is imported."""
    names = module.split(".")
    if names[0] != PACKAGE.name or not all(name.isidentifier() for name in names):
        return None
    path = PACKAGE.joinpath(*names[1:])
    files = [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
    return _read(files[0], files[0].stat().st_mtime_ns)[0] if files else None


def _parts(config: Config) -> Iterator[str]:
    nodes = [config.strategy, config.fusion, config.optimizer.node]
    nodes += [m.encoder for m in config.dataset.modalities.values()]
    for node in nodes:
        yield str(node.get("_target_")).rpartition(".")[0]


@cache
def _file(module: str) -> Path | None:
    """Source file of a module of this package or of the user's; None for installed libraries."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    outside = module.split(".", maxsplit=1)[0] != "miles_repro" and "site-packages" in spec.origin
    return None if outside else Path(spec.origin)


@cache
def _read(file: Path, changed_ns: int) -> tuple[str, tuple[str, ...]]:
    """SHA-256 of a file and the modules of this package it imports; read again once changed."""
    text = file.read_bytes()
    imports: list[str] = []
    for package, name in IMPORT.findall(text.decode(errors="replace")):
        imports += [package, f"{package}.{name}"] if name else [package]
    return hashlib.sha256(text).hexdigest(), tuple(imports)
