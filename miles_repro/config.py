"""One run's configuration: checked types and ranges, and the id made of all that moves a number.

``composing`` fills it from what Hydra composed. Imports no torch, so a finished run is skipped
before torch is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
)

from miles_repro.data.manifest import sha256_of
from miles_repro.errors import UserError, one_line
from miles_repro.records import Name, Text

NUMBERS_VERSION = 3
"""Raised by any change of code that can move a number; part of every run id."""

PATHS = {"folder", "weights"}
"""Arguments of an encoder that say where pretrained weights lie."""

LABELS = {"name", "label", "family", "search", "teachers"}
"""Entries of a node that are not arguments of its ``_target_``."""


def _named(node: dict[str, Any]) -> dict[str, Any]:
    Named.model_validate(node)
    return node


class Named(BaseModel):
    name: Name
    label: Text | None = None
    family: Text | None = None


Node = Annotated[dict[str, Any], AfterValidator(_named)]
"""A name, a ``_target_`` and its arguments."""


def _known_tracker(node: dict[str, Any]) -> dict[str, Any]:
    TrackerName.model_validate(node)
    return node


class TrackerName(BaseModel):
    name: Literal["none", "wandb"] = "none"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModalityConfig(Strict):
    encoder: dict[str, Any]
    augment: Annotated[
        dict[str, Any] | None, BeforeValidator(lambda v: None if v == "none" else v)
    ] = None


class DatasetConfig(BaseModel):
    """What training needs to know of a data set; its yaml holds preparation options besides."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name
    task: str | Node
    num_classes: int = Field(ge=1)
    threshold: float = Field(default=0.5, gt=0, lt=1)  # multilabel only
    metric: str | None = None  # the task's headline metric, where it has several
    scheme: str
    strong: str | None = None
    weak: str | None = None
    modalities: dict[Name, ModalityConfig]


class OptimizerConfig(BaseModel):
    """lr: the global rate alpha; further entries go to the optimizer's class."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: Name
    lr: float = Field(gt=0)
    clip_norm: float | None = Field(gt=0)
    schedule: Node

    @property
    def node(self) -> dict[str, Any]:
        """The class with its arguments, the rate apart."""
        return {"name": self.name, **(self.model_extra or {})}


class BudgetConfig(Strict):
    name: Name
    encoders: str
    trials: int = Field(ge=1)
    seeds: int = Field(ge=1)
    data_fraction: float = Field(gt=0, le=1)


class PrecisionConfig(Strict):
    name: Name
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
    """One run.

    pinned: searched keys whose value is not what the trial would give; teachers: modality -> the
    unimodal run whose model the strategy learns from; keep, rerun: what to store, and whether to
    repeat a finished run.
    """

    dataset: DatasetConfig
    fusion: Node
    strategy: Node
    optimizer: OptimizerConfig
    budget: BudgetConfig
    precision: PrecisionConfig
    tracker: Annotated[dict[str, Any], AfterValidator(_known_tracker)]
    runtime: RuntimeConfig
    seed: StrictInt = Field(ge=0)
    trial: StrictInt = Field(ge=0)
    epochs: StrictInt = Field(ge=1)
    batch_size: StrictInt = Field(ge=1)
    keep: list[Literal["weights", "predictions"]] = []
    rerun: StrictBool = False
    pinned: list[str] = []
    data_fingerprint: str
    teachers: dict[str, Config] = {}

    def identity(self) -> dict[str, Any]:
        """Everything that can move a number, as plain JSON: hashed into the run id."""
        moves = self.model_dump(
            mode="json",
            exclude={"runtime", "tracker", "keep", "rerun", "pinned", "teachers"},
        )
        moves["budget"] = {k: moves["budget"][k] for k in ("name", "data_fraction")}
        for node in (moves["strategy"], moves["fusion"]):
            for key in LABELS - {"name"}:
                node.pop(key, None)
        for key in ("strong", "weak"):  # words of the report
            del moves["dataset"][key]
        if self.dataset.task != "multilabel":
            del moves["dataset"]["threshold"]
        for modality in moves["dataset"]["modalities"].values():
            for key in PATHS & modality["encoder"].keys():
                if modality["encoder"][key]:
                    modality["encoder"][key] = _content(modality["encoder"][key])
        moves["dataset"]["order"] = list(self.dataset.modalities)  # keys get sorted
        if self.teachers:
            moves["teachers"] = {m: c.run_id for m, c in self.teachers.items()}
        return {"numbers_version": NUMBERS_VERSION, **_plain(moves)}

    @property
    def run_id(self) -> str:
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def run_dir(self) -> Path:
        cell = (self.dataset.name, self.fusion["name"], self.strategy["name"])
        return self.runtime.runs_dir.joinpath(*cell, self.run_id)


def _plain(value: Any) -> Any:
    """1.0 and 1 are one number, so they make one id."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value


@cache
def _content(path: str) -> str:
    """Pretrained weights by what they hold, not by where they lie."""
    here = Path(path)
    files = sorted(p for p in here.rglob("*") if p.is_file()) if here.is_dir() else [here]
    digests = [[p.name, sha256_of(p)] for p in files if p.is_file()]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest() if digests else path


def explain(error: ValidationError) -> str:
    """One line for all that a validation found."""
    return "; ".join(
        f"{'.'.join(str(p) for p in e['loc'])}={_short(e['input'])}: {e['msg'].lower()}"
        if e["type"] not in ("missing", "value_error")
        else f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}"
        for e in error.errors(include_url=False)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."


def build(node: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
    """Call a node's ``_target_`` with its other entries: the one place that imports by name.

    Raises:
        UserError: no such target, or arguments it does not accept.
    """
    label = str(node.get("name") or str(node.get("_target_")).rsplit(".", 1)[-1])
    own = {k: v for k, v in node.items() if k != "_target_" and k not in LABELS}
    try:
        return target(node)(*args, **own, **kwargs)
    except ValidationError as e:
        raise UserError(f"{label}: {explain(e)}") from None
    except (TypeError, ValueError) as e:
        raise UserError(f"{label}: {one_line(e)}") from None


def target(node: Mapping[str, Any]) -> Any:
    """What a node's ``_target_`` names. Raises UserError where it cannot be imported."""
    from hydra.utils import get_object

    try:
        return get_object(node["_target_"])
    except Exception as e:
        what = node.get("_target_")
        why = e.__cause__ if isinstance(e.__cause__, Exception) else e  # Hydra asks if it is there
        raise UserError(f"_target_ {what!r} cannot be imported: {one_line(why)}") from None
