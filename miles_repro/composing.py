"""From what Hydra composed to one checked configuration: trial, pinned values, teachers.

Each step takes values and returns new ones; nothing that it was given changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from miles_repro import places, trials
from miles_repro.config import Config, DatasetConfig, explain
from miles_repro.data.manifest import read_manifest
from miles_repro.errors import UserError
from miles_repro.places import CONF

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

Raw = Mapping[str, Any]
"""A composed configuration as plain values."""

ONE_MODALITY = {"name": "concat", "_target_": "miles_repro.fusions.concat.Concat"}
"""One modality has nothing to fuse: every fusion is the same run, kept under concat."""


def load(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Check a composed configuration and fill in its trial.

    ``overrides``: the command-line overrides; a searched value set there stays as it is.

    Raises:
        UserError: a value of the wrong type or range, an unprepared data set, no records where
            the configuration refers to some.
    """
    return complete(resolve(composed), overrides)


def resolve(composed: DictConfig) -> dict[str, Any]:
    """What Hydra composed, as plain values."""
    try:
        raw: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
            composed, resolve=True, throw_on_missing=True
        )
    except OmegaConfBaseException as e:
        raise UserError(f"configuration: {str(e).splitlines()[0]}") from None
    except RecursionError:
        raise UserError("configuration: an interpolation refers to itself") from None
    return raw


def compose(overrides: Iterable[str]) -> DictConfig:
    """What train.py would get. Raises UserError for choices that are not on the menu."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    running = GlobalHydra.instance().hydra  # that of train.py, when a job asks
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra_compose("config", [o for o in overrides if not _is_launching(o)])
    except (HydraException, OmegaConfBaseException) as e:
        raise UserError(" ".join(str(e).split("Config search path")[0].split())) from None
    finally:
        GlobalHydra.instance().clear()
        if running is not None:
            GlobalHydra.instance().initialize(running)


def _is_launching(override: str) -> bool:
    """How a sweep is launched is no part of a run's configuration."""
    key = override.lstrip("+")
    return key.startswith(("hydra/", "hydra.")) and not key.startswith("hydra.searchpath")


def complete(raw: Raw, overrides: Sequence[str] = ()) -> Config:
    """As :func:`load`, from the plain values."""
    if raw.get("experiment") is not None:
        raise UserError(
            "the experiment's file sets nothing: it lacks the line '# @package _global_' at its top"
        )
    sections = ("dataset", "fusion", "strategy", "optimizer", "budget", "runtime")
    if wrong := [key for key in sections if not isinstance(raw.get(key), Mapping)]:
        raise UserError(f"{wrong[0]}={raw.get(wrong[0])!r}: choose one of conf/{wrong[0]}")
    if computed := [k for k in ("pinned", "teachers", "data_fingerprint") if k in raw]:
        raise UserError(f"{computed[0]} is computed and cannot be set")
    _check_numbers(raw)
    _check_effect(overrides)
    if str(raw["strategy"].get("name")).startswith("unimodal_"):
        raw = {**raw, "fusion": ONE_MODALITY}
    spaces = trials.search_spaces(raw)
    plain = trials.without_search(raw)
    trial, drawn = trials.trial_values(plain, spaces)
    by_hand = _by_hand(plain, spaces, overrides)
    given = {k: _value(plain, k) for k in spaces}
    pinned = sorted(k for k in by_hand if k in spaces and given[k] != drawn.get(k, by_hand[k]))
    values = {k: v for k, v in drawn.items() if k not in by_hand}
    filled = trials.with_values(plain, values)
    teachers = _teachers(raw, overrides) if "teachers" in plain["strategy"] else {}
    return _checked(
        {
            **{k: v for k, v in filled.items() if k not in ("experiment", "hydra")},
            "trial": trial,
            "pinned": pinned,
            "teachers": teachers,
        }
    )


def _check_numbers(raw: Raw) -> None:
    """Before any value is drawn from them: 1.0, '1' and true are not trial 1, infinity is none."""
    for key, value in _leaves(raw):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key}={value}: a finite number")
    if raw["trial"] != "best" and not _is_count(raw["trial"]):
        raise UserError(f"trial={raw['trial']!r}: a whole number from 0 to 2^63 - 1, or best")
    if not _is_count(raw["seed"]):
        raise UserError(f"seed={raw['seed']!r}: a whole number from 0 to 2^63 - 1")


def _check_effect(overrides: Sequence[str]) -> None:
    """A data set's node has more than a run reads: what it does not is refused."""
    for override in map(_parsed, overrides):
        group, _, key = str(override.key_or_group).partition(".")
        field = key.partition(".")[0]
        added = override.is_add() and field not in DatasetConfig.model_fields
        if group == "dataset" and key and (added or field == "preparation"):
            raise UserError(f"{override.input_line}: no run reads it (prepare_data.py may)")


def _is_count(value: object) -> bool:
    """As records have them: a whole number of 63 bits."""
    return type(value) is int and 0 <= value < 2**63


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Full key -> value of all that is no mapping or list."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node


def _value(raw: Raw, key: str) -> Any:
    group, name = key.split(".", 1)
    return raw[group].get(name)


def _by_hand(raw: Raw, spaces: Raw, overrides: Sequence[str]) -> dict[str, Any]:
    """Searched keys that somebody set, in overrides or an experiment -> their default values."""
    choices, named, anything = _read(overrides)
    if not (named & spaces.keys() or anything):
        return {}
    defaults = _defaults(*choices)
    standing = {k: _value(defaults, k) for k in spaces}
    return {k: v for k, v in standing.items() if k in named or (anything and v != _value(raw, k))}


def _read(overrides: Sequence[str]) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], set, bool]:
    """Group choices with the search path, keys set one by one, whether anything else may be."""
    from hydra.core.hydra_config import HydraConfig

    groups = ("strategy", "optimizer", "optimizer/schedule")
    chosen: dict[str, str] = {}
    named: set[str] = set()
    path: list[str] = []
    anything = False
    for override in map(_parsed, overrides):
        key, value = override.key_or_group, override.value()
        if isinstance(value, dict) and key in groups:
            named |= {f"{key}.{name}" for name in value}
        elif key in groups:
            chosen[str(key)] = str(value)
        elif key == "hydra.searchpath":
            path.append(str(override.input_line))
        elif key.startswith(("strategy.", "optimizer.")):
            named.add(key)
        anything |= key == "experiment" and value is not None
    if HydraConfig.initialized():
        runtime = HydraConfig.get().runtime
        chosen |= {g: str(c) for g, c in runtime.choices.items() if g in groups}
        anything |= runtime.choices.get("experiment") is not None
        extra = [s.path for s in runtime.config_sources if "searchpath" in s.provider]
        if extra:
            path = [f"hydra.searchpath=[{','.join('file://' + p for p in extra)}]"]
    return (tuple(f"{g}={c}" for g, c in sorted(chosen.items())), tuple(path)), named, anything


@cache
def _parsed(override: str) -> Override:
    """The same few overrides come with every run of a protocol, and parsing is half a look."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides([override])[0]


@cache
def _defaults(choices: tuple[str, ...], searchpath: tuple[str, ...]) -> Raw:
    """The configuration with these choices and nothing set by hand."""
    return OmegaConf.to_container(compose([*choices, *searchpath]))  # type: ignore[return-value]


def _teachers(raw: Raw, overrides: Sequence[str]) -> dict[str, Config]:
    """The unimodal runs of this run's seed, one a modality: the best trial on record, else 0."""
    unimodal = _defaults(("strategy=unimodal",), ())["strategy"]
    kept = [o for o in overrides if not o.lstrip("+~").startswith(("strategy", "fusion"))]
    found = {}
    for m in raw["dataset"]["modalities"]:
        node = resolve(OmegaConf.create({"strategy": {**unimodal, "modality": m}}))["strategy"]
        asked = {**raw, "strategy": node, "keep": ["weights"], "rerun": False}
        if raw["strategy"]["teachers"] == "best":
            trial = trials.best_or_default({**asked, "fusion": ONE_MODALITY})
        else:
            trial = raw["strategy"]["teachers"]
        found[m] = complete({**asked, "trial": trial}, kept)
    return found


def _checked(raw: Raw) -> Config:
    folder = Path(raw["runtime"]["data_dir"]) / str(raw["dataset"].get("name"))
    if not (folder / "manifest.json").is_file():
        raise UserError(
            f"data set {folder.name} is not prepared in {folder}: run "
            f"{places.command('prepare')} dataset={folder.name} (docs/data.md: which raw=)"
        )
    manifest = read_manifest(folder)
    try:
        config = Config.model_validate({**raw, "data_fingerprint": manifest["fingerprint"]})
    except ValidationError as e:
        raise UserError(explain(e)) from None
    dataset = config.dataset
    for role in ("strong", "weak"):
        if getattr(dataset, role) not in (None, *dataset.modalities):
            raise UserError(
                f"dataset.{role}={getattr(dataset, role)} is not among its modalities "
                f"({', '.join(dataset.modalities)})"
            )
    if dataset.strong is not None and dataset.strong == dataset.weak:
        raise UserError(f"dataset.strong and dataset.weak are both {dataset.strong}")
    classes, task = manifest.get("classes"), manifest.get("task")
    asked = dataset.task if isinstance(dataset.task, str) else dataset.task["name"]
    if task and asked != task:
        raise UserError(f"dataset.task={asked}, but {folder} was prepared for {task}")
    wanted = 1 if task == "binary" else len(classes or ())
    if wanted and dataset.num_classes != wanted:
        what = "a binary task, whose model has 1 output" if wanted == 1 else f"{wanted} classes"
        raise UserError(
            f"dataset.num_classes={dataset.num_classes}, but {folder} was prepared with {what}"
        )
    return config


def check_combination(config: Config, strategy: Any, fusion: Any) -> list[str]:
    """Refuse what is not defined, with the reason. Returns the modalities the run will use.

    ``strategy`` is the built strategy, ``fusion`` the fusion's class.
    """
    name, needs = config.strategy["name"], strategy.needs
    try:
        used = strategy.restrict(list(config.dataset.modalities))
    except ValueError as e:
        raise UserError(f"strategy {name}: {e}") from None
    kind = config.fusion["name"]
    if needs.fusions is not None and kind not in needs.fusions:
        raise UserError(
            f"strategy {name} is not defined for fusion={kind}; "
            f"use {', '.join(sorted(needs.fusions))}"
        )
    task = config.dataset.task if isinstance(config.dataset.task, str) else "own"
    if needs.tasks is not None and task not in needs.tasks:
        raise UserError(
            f"strategy {name} is not defined for {task} data sets such as {config.dataset.name}"
        )
    for who, low, high in (
        (f"strategy {name}", needs.min_modalities, needs.max_modalities),
        (f"fusion {kind}", fusion.min_modalities, fusion.max_modalities),
    ):
        if len(used) < low or (high is not None and len(used) > high):
            raise UserError(
                f"{who} needs {low if high is None or low == high else f'{low} to {high}'}"
                f"{' or more' if high is None else ''} modalities; "
                f"{config.dataset.name} gives {len(used)} ({', '.join(used)})"
            )
    if needs.teachers and not config.teachers:
        raise UserError(f"strategy {name} learns from unimodal runs: set strategy.teachers=best")
    return used
