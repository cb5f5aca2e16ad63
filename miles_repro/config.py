"""From what Hydra composed to one checked, typed configuration and its run id.

Hydra picks and merges the yaml files; here the values get types and ranges (pydantic), a trial's
drawn values are filled in, what does not go together is refused with the reason, and the run id is
computed. Imports no torch, so a finished run is skipped before torch is loaded.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from miles_repro import trials
from miles_repro.data.manifest import read_manifest, sha256_of
from miles_repro.errors import UserError, one_line

NUMBERS_VERSION = 1
"""Raised by any change of code that can move a number; part of every run id."""

PATHS = {"folder", "weights"}
"""Arguments of an encoder that say where pretrained weights lie."""
Node = dict[str, Any]
"""A ``_target_`` and its arguments."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModalityConfig(Strict):
    encoder: Node
    augment: Annotated[Node | None, BeforeValidator(lambda v: None if v == "none" else v)] = None


class DatasetConfig(BaseModel):
    """What training needs to know of a data set; its yaml holds preparation options besides."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    task: Literal["multiclass", "multilabel"]
    num_classes: int = Field(ge=2)
    threshold: float = Field(default=0.5, gt=0, lt=1)  # multilabel only
    scheme: str
    strong: str
    weak: str
    modalities: dict[str, ModalityConfig]


class OptimizerConfig(Strict):
    name: Literal["adam", "adamw", "sgd"]
    lr: float = Field(gt=0)
    betas: tuple[float, float]
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    clip_norm: float | None = Field(gt=0)
    schedule: Literal["constant", "cosine", "step"]
    step_epochs: int = Field(ge=1)
    step_gamma: float = Field(gt=0)


class BudgetConfig(Strict):
    name: str
    encoders: str
    trials: int = Field(ge=1)
    seeds: int = Field(ge=1)
    data_fraction: float = Field(gt=0, le=1)


class PrecisionConfig(Strict):
    name: str
    amp: Literal["bf16", "fp16"] | None
    channels_last: bool
    compile: bool


class RuntimeConfig(Strict):
    runs_dir: Path
    data_dir: Path
    device: str
    threads: int = Field(ge=1)
    resident_mb: int = Field(ge=0)
    eval_batch_size: int = Field(ge=1)


class Config(Strict):
    """One run."""

    dataset: DatasetConfig
    fusion: Node
    strategy: Node
    optimizer: OptimizerConfig
    budget: BudgetConfig
    precision: PrecisionConfig
    tracker: dict[str, Any]
    runtime: RuntimeConfig
    seed: int = Field(ge=0)
    trial: int = Field(ge=0)
    unimodal_source: Literal["auto", "split", "probe"]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    pinned: list[str]
    data_fingerprint: str
    stacked: bool = False

    def identity(self) -> dict[str, Any]:
        """Everything that can move a number, as plain JSON: hashed into the run id."""
        moves = self.model_dump(mode="json", exclude={"runtime": True, "tracker": True})
        moves["budget"] = {k: moves["budget"][k] for k in ("name", "data_fraction")}
        if not self.stacked:
            del moves["stacked"]
        if self.dataset.task == "multiclass":
            del moves["dataset"]["threshold"]
        for modality in moves["dataset"]["modalities"].values():
            for key in PATHS & modality["encoder"].keys():
                if modality["encoder"][key]:
                    modality["encoder"][key] = _content(modality["encoder"][key])
        moves["dataset"]["order"] = list(
            self.dataset.modalities
        )  # of concatenation; keys get sorted
        return {"numbers_version": NUMBERS_VERSION, **moves}

    @property
    def run_id(self) -> str:
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def run_dir(self) -> Path:
        cell = (self.dataset.name, self.fusion["name"], self.strategy["name"])
        return self.runtime.runs_dir.joinpath(*cell, self.run_id)


def load(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Check a composed configuration and fill in its trial.

    ``overrides``: the command-line overrides; a searched value set there stays as it is.

    Raises:
        UserError: a value of the wrong type or range, an unprepared data set, no records where
            the configuration refers to some.
    """
    return complete(resolve(composed), overrides)


def load_all(composed: DictConfig, overrides: Sequence[str] = ()) -> list[Config]:
    """As :func:`load`; a list as seed or trial asks for a stack: one configuration for each."""
    raw = resolve(composed)
    lists = {k: raw[k] for k in ("seed", "trial") if isinstance(raw[k], list)}
    if not lists:
        return [complete(raw, overrides)]
    for key, values in lists.items():
        if not values or len({str(v) for v in values}) < len(values):
            raise UserError(f"{key}={values}: a stack needs different values")
    precision = raw["precision"]
    if precision["compile"] or precision["channels_last"]:
        raise UserError(
            "a stack of runs goes with neither precision.compile nor precision.channels_last: "
            "switch them off, or give one seed and trial at a time"
        )
    chosen = [
        dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())
    ]
    return [
        complete(copy.deepcopy(raw) | one, overrides).model_copy(update={"stacked": True})
        for one in chosen
    ]


def resolve(composed: DictConfig) -> dict[str, Any]:
    """What Hydra composed, as plain values."""
    try:
        raw: dict[str, Any] = OmegaConf.to_container(  # type: ignore[assignment]
            composed, resolve=True, throw_on_missing=True
        )
    except OmegaConfBaseException as e:
        raise UserError(f"configuration: {str(e).splitlines()[0]}") from None
    return raw


def complete(raw: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """As :func:`load`, from the plain values, which it changes."""
    raw.pop("experiment", None)
    spaces = trials.search_spaces(raw)
    fixed = {o.lstrip("+").split("=", 1)[0] for o in overrides}
    raw["pinned"] = sorted(fixed & spaces.keys())
    if str(raw["strategy"]["name"]).startswith("unimodal_"):
        # One modality has nothing to fuse: every fusion is the same run, kept under concat.
        raw["fusion"] = {"name": "concat", "_target_": "miles_repro.fusions.concat.Concat"}
    trials.fill_in(raw, spaces)
    folder = Path(raw["runtime"]["data_dir"]) / raw["dataset"]["name"]
    if not (folder / "manifest.json").is_file():
        raise UserError(
            f"data set {folder.name} is not prepared in {folder}: run "
            f"python scripts/prepare_data.py dataset={folder.name} (README, Data: which raw=)"
        )
    raw["data_fingerprint"] = read_manifest(folder)["fingerprint"]
    try:
        config = Config.model_validate(raw)
    except ValidationError as e:
        raise UserError(explain(e)) from None
    for role in ("strong", "weak"):
        if getattr(config.dataset, role) not in config.dataset.modalities:
            raise UserError(
                f"dataset.{role}={getattr(config.dataset, role)} is not among its modalities "
                f"({', '.join(config.dataset.modalities)})"
            )
    return config


@cache
def _content(path: str) -> str:
    """Pretrained weights by what they hold, not by where they lie."""
    here = Path(path)
    files = sorted(p for p in here.rglob("*") if p.is_file()) if here.is_dir() else [here]
    digests = [[p.name, sha256_of(p)] for p in files if p.is_file()]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest() if digests else path


def explain(error: ValidationError, prefix: str = "") -> str:
    """One line for all that a validation found."""
    return "; ".join(
        f"{prefix}{'.'.join(str(p) for p in e['loc'])}={e['input']!r}: {e['msg'].lower()}"
        if e["type"] not in ("missing", "value_error")
        else f"{prefix}{'.'.join(str(p) for p in e['loc'])}: {e['msg']}"
        for e in error.errors(include_url=False)
    )


def build(node: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Call a node's ``_target_`` with its other entries: the one place that imports by name.

    Raises:
        UserError: no such target, or arguments it does not accept.
    """
    from hydra.utils import get_object

    target = node["_target_"]
    own = {k: v for k, v in node.items() if k not in ("_target_", "name")}
    try:
        factory = get_object(target)
    except Exception as e:
        raise UserError(f"_target_ {target!r} cannot be imported: {one_line(e)}") from None
    label = str(node.get("name") or target.rsplit(".", 1)[-1])
    try:
        return factory(*args, **own, **kwargs)
    except ValidationError as e:
        raise UserError(f"{label}: {explain(e)}") from None
    except (TypeError, ValueError) as e:
        raise UserError(f"{label}: {one_line(e)}") from None


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
    if needs.tasks is not None and config.dataset.task not in needs.tasks:
        raise UserError(
            f"strategy {name} is not defined for {config.dataset.task} data sets such as "
            f"{config.dataset.name}"
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
    if config.unimodal_source != "auto" and needs.heads == "trained":
        raise UserError(
            f"unimodal_source={config.unimodal_source} does not go with strategy {name}, "
            "which trains unimodal heads: use unimodal_source=auto"
        )
    return used
