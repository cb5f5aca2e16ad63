"""What ``summary.json`` holds: one typed model, checked wherever a record is read.

A record may come from another person, another machine or W&B, so every name in it that becomes a
path or markup follows one rule (:data:`Name`), and no consumer checks anything again. The parts
that reports only show (``environment``, ``command``, ``label``) are text without control characters
or angle brackets. Imports neither torch nor pandas.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, FiniteFloat, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from miles_repro.errors import UserError

SCHEMA = 2
"""Version of ``summary.json``; a record of another version is named and left out."""

NAME_RULE = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}$"
Name = Annotated[str, StringConstraints(pattern=NAME_RULE)]
"""A name that may become a folder, a file name, a table heading or markup."""
_UNSEEN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""Controls, line separators, and what turns the direction of writing."""
Text = Annotated[str, StringConstraints(pattern=rf"^[^{_UNSEEN}<>]*$", max_length=2000)]
"""A line that is only shown."""
Command = Annotated[str, StringConstraints(pattern=rf"^[^{_UNSEEN}]*$", max_length=2000)]
"""What a person typed, whatever that was."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
Scalar = Text | bool | int | FiniteFloat | None

_OPEN = ConfigDict(strict=True, extra="allow")


class Score(TypedDict):
    """None stands for a number that was not finite: JSON has none."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    loss: FiniteFloat | None
    metric: FiniteFloat | None


Scores = dict[Name, Score]
"""``fused`` or a modality -> its scores."""


class Splits(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    val: Scores
    test: Scores


class Utilization(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    val: dict[Name, FiniteFloat | None] | None
    test: dict[Name, FiniteFloat | None] | None


class Optimizer(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    lr: FiniteFloat


class Settings(TypedDict):
    """``config``: everything that can move a number, see ``Config.identity``."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    dataset: dict[str, Any]
    fusion: dict[str, Any]
    strategy: dict[str, Any]
    optimizer: Optimizer
    budget: dict[str, Any]


class Cost(TypedDict):
    __pydantic_config__ = _OPEN  # type: ignore[misc]

    wall_s: FiniteFloat | None
    cpu_s: FiniteFloat | None
    train_samples_per_s: FiniteFloat | None
    peak_rss_mb: FiniteFloat | None
    peak_gpu_mb: FiniteFloat | None
    energy_j: FiniteFloat | None


class Summary(TypedDict):
    """One finished run; consumers index it like the dict it is."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    schema: Literal[2]
    status: Literal["done", "diverged"]
    run_id: Name
    dataset: Name
    fusion: Name
    strategy: Name
    label: Text
    family: Text
    trial: Count
    seed: Count
    budget: Name
    pinned: list[Text]
    keep: list[Name]
    code: dict[Text, Text]
    command: Command
    config: Settings
    data_fingerprint: Text
    modalities: Annotated[list[Name], Field(min_length=1)]
    strong: Name | None
    weak: Name | None
    metric: Name
    unimodal_source: Literal["trained", "split", "zero_mask", "own"]
    epochs: Annotated[Count, Field(ge=1)]
    best_epoch: Annotated[Count, Field(ge=1)]
    val: Scores
    test: Scores
    gap: FiniteFloat | None
    utilization: Utilization
    instruments: dict[Literal["split", "probe"], Splits]
    missing: dict[Name, Scores]
    noise: dict[Name, Scores]
    cost: Cost
    environment: dict[Name, Scalar]
    finished: Text


class Row(TypedDict):
    """One line of ``metrics.jsonl``: an epoch."""

    __pydantic_config__ = _OPEN  # type: ignore[misc]

    epoch: Annotated[Count, Field(ge=1)]
    train: NotRequired[Scores]
    val: NotRequired[Scores]
    utilization: NotRequired[dict[Name, FiniteFloat | None]]
    lr: NotRequired[dict[Name, FiniteFloat | None]]
    strategy: NotRequired[dict[str, Any]]
    time: NotRequired[dict[Name, FiniteFloat]]


_summary, _row, _name = TypeAdapter(Summary), TypeAdapter(Row), TypeAdapter(Name)


class NotASummary(ValueError):
    """``older``: a whole record, of another version of this suite."""

    def __init__(self, why: str, *, older: bool = False) -> None:
        super().__init__(why)
        self.older = older


def parse_summary(text: bytes | str) -> Summary:
    """A record, checked, as it was written.

    Raises:
        NotASummary: with a line that says what is wrong.
    """
    check_summary(text)
    try:
        summary: Summary = json.loads(text)
    except RecursionError:
        raise NotASummary("is nested too deeply") from None
    return summary


def check_summary(text: bytes | str) -> Summary:
    """As :func:`parse_summary`, in half the time: the same record, its keys in another order."""
    try:
        summary = _summary.validate_json(text)
    except ValidationError as e:
        raise _explain(e, text) from None
    check_parts(summary)
    return summary


def check_parts(summary: Summary) -> None:
    """Raises NotASummary where parts of a record, each of its type, do not go together."""
    known = {"fused", *summary["modalities"]}
    for split in ("val", "test"):
        scores = summary[split]
        if "fused" not in scores or not scores.keys() <= known:
            raise NotASummary(f"{split} has scores of {', '.join(scores) or 'nothing'}")
    if summary["best_epoch"] > summary["epochs"]:
        raise NotASummary("best_epoch is larger than epochs")


def _explain(error: ValidationError, text: bytes | str) -> NotASummary:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] == "json_invalid":
        return NotASummary("is no whole JSON text")
    try:
        found = json.loads(text)
        version = found.get("schema") if isinstance(found, dict) else None
    except (ValueError, RecursionError):
        version = None
    if type(version) is int and version != SCHEMA and found.get("status") == "done":
        newer = "a newer" if version > SCHEMA else "an older"
        return NotASummary(f"is of {newer} version (schema {version})", older=version < SCHEMA)
    where = ".".join(printable(part) for part in first["loc"])[:80]
    return NotASummary(f"{where or 'the whole'}: {first['msg'].lower()}")


def parse_row(text: bytes | str) -> Row | None:
    """An epoch's row; None where it is damaged."""
    try:
        return _row.validate_json(text)
    except (ValidationError, RecursionError):
        return None


def printable(text: object) -> str:
    """Foreign text or bytes of a path, fit for one line on a terminal."""
    return "".join(c if c.isprintable() else "?" for c in str(text))


def check_name(value: object, what: str) -> str:
    """``value``, where it may become a folder's name.

    Raises:
        UserError: it may not.
    """
    try:
        return _name.validate_python(value, strict=True)
    except ValidationError:
        raise UserError(
            f"{what}={printable(value)[:80]}: a name has 1 to 64 letters, digits or any of _ - + . "
            "and begins with a letter, a digit or _"
        ) from None
