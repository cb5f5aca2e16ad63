"""The command that prepares data: finds a data set's preparer and calls it with typed options.

No registry: ``conf/dataset/<name>.yaml`` names the module (``preparer: miles_repro.data.smnist``),
which holds ``prepare(raw, out, *, workers=None, **options)`` and ``VERSION``. The options are the
keyword arguments of that function, typed by their annotations. The default of an option that can
move a number stands in the yaml (``preparation``), that of any other in the function. With
``table=`` the preparer is ``miles_repro.data.table``, and the yaml is written afterwards.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from miles_repro import places
from miles_repro.data.download import download
from miles_repro.data.manifest import read_manifest, verify
from miles_repro.data.table_read import YAML_WORDS
from miles_repro.errors import UserError, ended

CONF = places.CONF / "dataset"
TABLE = "miles_repro.data.table"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
USAGE = """\
{command} dataset=<name> [raw=<folder> | download=true] [out=<data folder>] [option=value ...]
    [--verify] [--force]
{command} dataset=<new name> table=<csv or parquet> [arrays=<folder>] [conf_dir=<folder>]
    [option=value ...]

Reads a data set's raw files once and writes the prepared folder <out>/<name> that training reads.
An interrupted command goes on where it stopped when it is run again.

  dataset   one of: {names}; or a name of your own with table=
  raw       folder of the raw files, as docs/data.md describes it for each data set
  download  true: fetch the raw files into <out>/.cache, where a few public files are all
  out       data folder (default: $MILES_DATA, else data)
  workers   processes (default: all cores)
  conf_dir  folder for dataset/<new name>.yaml, which Hydra then needs in hydra.searchpath
            (default: conf)
  --verify  check counts, shapes, values and hashes of the prepared folder; writes nothing
  --force   prepare again even if the folder is there (also throws away an interrupted start)

Options by data set:
{options}"""


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status. Mistakes give one line and status 2."""
    return ended(
        partial(_run, arguments), "interrupted: run the same command again to go on from here"
    )


def _run(arguments: Sequence[str]) -> int:
    flags = {word for word in arguments if "=" not in word}
    unknown = flags - {"--verify", "--force", "--help", "-h"}
    if unknown:
        raise UserError(f"{min(unknown)!r} is not understood: use key=value, --verify, --force")
    if not arguments or flags & {"--help", "-h"}:
        names = ", ".join(dataset_names())
        command = places.command("prepare")
        print(USAGE.format(command=command, names=names, options=_all_options()))
        return 0
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    name = given.pop("dataset", "")
    if not name:
        raise UserError(f"dataset=<name> is missing: one of {', '.join(dataset_names())}")
    out = given.pop("out", "")
    data = Path(out or os.environ.get("MILES_DATA", "") or "data")
    raw = Path(given.pop("raw")) if given.get("raw") else None
    fetch = _yes("download", given.pop("download", "false"))
    if "--verify" in flags:
        manifest = verify(data / name)
        print(f"{data / name} is intact: {_summary(manifest)}")
        return 0
    conf_dir = Path(given.pop("conf_dir")) if given.get("conf_dir") else None
    if "table" not in given:
        if conf_dir is not None:
            raise UserError("conf_dir= goes with table=")
    else:
        _check_new(name, conf_dir)
    force = "--force" in flags
    if fetch and (raw is not None or "table" in given):
        raise UserError("download=true fetches the raw files: leave raw= and table= away")
    if fetch and (force or not (data / name / "manifest.json").exists()):
        raw = download(name, preparer_of(name), data / ".cache" / name)
    manifest, fresh = prepare_dataset(name, raw, data, given, force)
    state = "prepared" if fresh else "is already prepared (--force prepares it again)"
    print(f"{data / name} {state}: {_summary(manifest)}")
    for reason, n in Counter(entry["reason"] for entry in manifest["report"]["skipped"]).items():
        print(f"  left out, {reason}: {n:,} (listed in {data / name / 'manifest.json'})")
    for note in manifest["report"]["notes"]:
        print(f"  {note}")
    if "table" in given:
        _introduce(name, manifest, conf_dir, out, force)
    return 0


def _yes(key: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UserError(f"{key}={text}: true or false")
    return text == "true"


def _check_new(name: str, conf_dir: Path | None) -> None:
    """Raises UserError where a user's own data set cannot have this name or configuration."""
    if conf_dir is not None and conf_dir.exists() and not conf_dir.is_dir():
        raise UserError(f"conf_dir={conf_dir} is not a folder")
    if not NAME.fullmatch(name) or name.lower() in YAML_WORDS:
        raise UserError(
            f"dataset={name}: letters, digits, _ and - only, a letter first, 64 at most, and none "
            f"of {', '.join(sorted(YAML_WORDS))}"
        )
    path = CONF / f"{name}.yaml"
    if path.is_file() and _configuration(name).get("preparer") != TABLE:
        raise UserError(f"dataset={name} is the name of another data set ({path}): choose one")


def _introduce(
    name: str, manifest: Mapping[str, Any], conf_dir: Path | None, out: str, force: bool
) -> None:
    """Write the configuration of a user's own data set; say what to do next."""
    from miles_repro.data import recipe

    folder = CONF if conf_dir is None else conf_dir / "dataset"
    path, written = recipe.write(name, manifest, folder, force)
    print(f"{path} {'written' if written else 'kept as it was'}; next:")
    for command in recipe.next_commands(name, manifest, conf_dir, out):
        print(f"  {command}")


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
    own = "table" in (options or {})
    module = importlib.import_module(TABLE) if own else preparer_of(name)
    written = {} if own else _written_defaults(name)
    typed = _typed_options(name, module, written, options or {})
    out = data / name
    if force:
        _forget_partial(out)
    elif (out / "manifest.json").exists():
        manifest = read_manifest(out)
        _must_agree(out, module, manifest, {key: typed[key] for key in options or {}})
        if own:
            _same_sources(out, module, manifest, typed)
        return manifest, False
    if raw is not None and not raw.is_dir():
        raise UserError(f"raw={raw} is not a folder")
    return module.prepare(raw, out, **typed), True


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


def options_of(module: ModuleType) -> type[BaseModel]:
    """The typed options of a preparer: the keyword arguments of its ``prepare``."""
    hints = get_type_hints(module.prepare)
    fields: dict[str, Any] = {
        key: (hints[key], ... if p.default is p.empty else p.default)
        for key, p in inspect.signature(module.prepare).parameters.items()
        if p.kind is p.KEYWORD_ONLY
    }
    return create_model("Options", __config__=ConfigDict(extra="forbid"), **fields)


def _typed_options(
    name: str, module: ModuleType, written: Mapping[str, Any], given: Mapping[str, str]
) -> dict[str, Any]:
    """Every option with its value, of its type."""
    model = options_of(module)
    for key in given:
        if key not in model.model_fields:
            known = ", ".join(k for k in model.model_fields if k != "workers")
            raise UserError(f"{name} has no option {key!r}: it has {known}")
    try:
        typed = dict(model.model_validate({**written, **given}))
    except ValidationError as error:
        from miles_repro.config import explain

        raise UserError(explain(error)) from None
    if not 0 <= typed.get("seed", 0) < 2**32:
        raise UserError(f"seed={typed['seed']} must be from 0 to {2**32 - 1:,}")
    return typed


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


def _same_sources(
    out: Path, module: ModuleType, manifest: Mapping[str, Any], typed: Mapping[str, Any]
) -> None:
    if not Path(typed["table"]).is_file():
        return
    names = inspect.signature(module.sources).parameters
    now = module.sources(**{name: typed[name] for name in names})
    recorded = manifest["parameters"]["sources"]
    for name in sorted(now.keys() | recorded.keys()):
        if now.get(name) != recorded.get(name):
            how = "changed" if name in recorded and name in now else "come or gone"
            raise UserError(f"{name} has {how} since {out} was prepared: add --force")


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
    for name in [*dataset_names(), ""]:
        module = preparer_of(name) if name else importlib.import_module(TABLE)
        written = _written_defaults(name) if name else {}
        title = name or "<your own>"
        lines.append(f"  {title}: {(inspect.getdoc(module.prepare) or '').splitlines()[0]}")
        for key, field in options_of(module).model_fields.items():
            if key != "workers":
                default = written.get(key, "" if field.is_required() else field.default)
                lines.append(f"      {key}={default}")
    return "\n".join(lines)
