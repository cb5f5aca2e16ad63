"""The command that prepares data: finds a data set's preparer and calls it with typed options.

No registry: ``conf/dataset/<name>.yaml`` names the module (``preparer: miles_repro.data.smnist``),
which holds ``prepare(raw, out, *, workers=None, **options)`` and ``VERSION``. The options are the
keyword arguments of that function. The default of an option that can move a number stands in the
yaml (``preparation``), that of any other in the function; the default gives the type.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from miles_repro import places
from miles_repro.data.manifest import read_manifest, verify
from miles_repro.errors import UserError

CONF = places.CONF / "dataset"
USAGE = """\
python scripts/prepare_data.py dataset=<name> [raw=<folder>] [out=<data folder>] [option=value ...]
                               [--verify] [--force]

Reads a data set's raw files once and writes the prepared folder <out>/<name> that training reads.
An interrupted command goes on where it stopped when it is run again.

  dataset   one of: {names}
  raw       folder of the raw files, as docs/data.md describes it for each data set
  out       data folder (default: $MILES_DATA, else data)
  workers   processes (default: all cores)
  --verify  check counts, shapes and hashes of the prepared folder; writes nothing
  --force   prepare again even if the folder is there (also throws away an interrupted start)

Options by data set:
{options}"""


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status. Mistakes give one line and status 2."""
    try:
        return _run(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on from here", file=sys.stderr)
        return 130


def _run(arguments: Sequence[str]) -> int:
    flags = {word for word in arguments if "=" not in word}
    unknown = flags - {"--verify", "--force", "--help", "-h"}
    if unknown:
        raise UserError(f"{min(unknown)!r} is not understood: use key=value, --verify, --force")
    if not arguments or flags & {"--help", "-h"}:
        print(USAGE.format(names=", ".join(dataset_names()), options=_all_options()))
        return 0
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    name = given.pop("dataset", "")
    if not name:
        raise UserError(f"dataset=<name> is missing: one of {', '.join(dataset_names())}")
    data = Path(given.pop("out", "") or os.environ.get("MILES_DATA", "") or "data")
    raw = Path(given.pop("raw")) if given.get("raw") else None
    if "--verify" in flags:
        manifest = verify(data / name)
        print(f"{data / name} is intact: {_summary(manifest)}")
        return 0
    manifest, fresh = prepare_dataset(name, raw, data, given, force="--force" in flags)
    state = "prepared" if fresh else "is already prepared (--force prepares it again)"
    print(f"{data / name} {state}: {_summary(manifest)}")
    for reason, n in Counter(entry["reason"] for entry in manifest["report"]["skipped"]).items():
        print(f"  left out, {reason}: {n:,} (listed in {data / name / 'manifest.json'})")
    for note in manifest["report"]["notes"]:
        print(f"  {note}")
    return 0


def prepare_dataset(
    name: str,
    raw: Path | None,
    data: Path,
    options: Mapping[str, str] | None = None,
    force: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Prepare ``<data>/<name>`` unless it is there.

    Args:
        options: preparation options as text, ``{"val_split": "grouped", "workers": "1"}``.
        force: prepare anew in any case.

    Returns:
        The manifest, and whether anything was done.

    Raises:
        UserError: unknown data set or option, or prepared before with another version or option.
    """
    module = preparer_of(name)
    typed = _typed_options(name, _defaults(name, module), options or {})
    out = data / name
    if force:
        _forget_partial(out)
    elif (out / "manifest.json").exists():
        manifest = read_manifest(out)
        _must_agree(out, module, manifest, typed)
        return manifest, False
    if raw is not None and not raw.is_dir():
        raise UserError(f"raw={raw} is not a folder")
    return module.prepare(raw, out, **{**_written_defaults(name), **typed}), True


def dataset_names() -> list[str]:
    """Data sets with a configuration file, in alphabetical order."""
    return sorted(path.stem for path in CONF.glob("*.yaml"))


def preparer_of(name: str) -> ModuleType:
    """The module named by ``preparer`` in a data set's configuration."""
    target = _configuration(name).get("preparer")
    if not isinstance(target, str):
        raise UserError(f"{CONF / name}.yaml names no preparer (preparer: <module>)")
    return importlib.import_module(target)


def _configuration(name: str) -> dict[str, Any]:
    import yaml

    path = CONF / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"unknown data set {name!r}: one of {', '.join(dataset_names())}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _written_defaults(name: str) -> dict[str, Any]:
    return _configuration(name).get("preparation") or {}


def _defaults(name: str, module: ModuleType) -> dict[str, Any]:
    """Every option of a data set's preparation with its default."""
    parameters = inspect.signature(module.prepare).parameters
    own = {key: p.default for key, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    return own | _written_defaults(name)


def _typed_options(
    name: str, defaults: Mapping[str, Any], given: Mapping[str, str]
) -> dict[str, Any]:
    typed: dict[str, Any] = {}
    for key, text in given.items():
        if key not in defaults:
            raise UserError(f"{name} has no option {key!r}: it has {', '.join(defaults)}")
        try:
            typed[key] = _read(text, int if key == "workers" else type(defaults[key]))
        except ValueError as error:
            raise UserError(f"{key}={text}: {error}") from None
    return typed


def _read(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false is expected")
        return text.lower() == "true"
    return text if kind is type(None) else kind(text)


def _must_agree(
    out: Path, module: ModuleType, manifest: Mapping[str, Any], typed: Mapping[str, Any]
) -> None:
    if manifest["version"] != module.VERSION:
        raise UserError(
            f"{out} was prepared by version {manifest['version']} of its preparer, this is "
            f"version {module.VERSION}: add --force to prepare it again"
        )
    for key, value in typed.items():
        recorded = manifest["parameters"].get(key, value)
        if recorded != value:
            raise UserError(
                f"{out} was prepared with {key}={recorded}: add --force to prepare it again "
                f"with {key}={value}, or choose another folder with out=..."
            )


def _forget_partial(out: Path) -> None:
    import shutil

    shutil.rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)


def _summary(manifest: Mapping[str, Any]) -> str:
    schemes = "; ".join(
        f"{scheme} {counts['train']:,} / {counts['val']:,} / {counts['test']:,}"
        for scheme, counts in manifest["schemes"].items()
    )
    return f"{manifest['rows']:,} rows, train / val / test: {schemes}"


def _all_options() -> str:
    lines = []
    for name in dataset_names():
        module = preparer_of(name)
        lines.append(f"  {name}: {(inspect.getdoc(module.prepare) or '').splitlines()[0]}")
        for key, default in _defaults(name, module).items():
            if key != "workers":
                lines.append(f"      {key}={default}")
    return "\n".join(lines)
