"""Hyper-parameters as annotated fields: a default, a range, and a check without any library."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

BOUNDS = {
    "gt": (lambda v, b: v > b, "above"),
    "ge": (lambda v, b: v >= b, "at least"),
    "lt": (lambda v, b: v < b, "below"),
    "le": (lambda v, b: v <= b, "at most"),
}


def hyper(
    default: Any = dataclasses.MISSING,
    *,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
) -> Any:
    """A field with its default (none: it must be given) and range (of a mapping: its values')."""
    bounds = {"gt": gt, "ge": ge, "lt": lt, "le": le}
    metadata = {k: v for k, v in bounds.items() if v is not None}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check(instance: Any) -> None:
    """Check every field of a dataclass; whole numbers given for a float become floats.

    Raises ValueError naming all that are of another type or out of range.
    """
    wrong = []
    hints = get_type_hints(type(instance))
    for f in dataclasses.fields(instance):
        try:
            value = _typed(getattr(instance, f.name), hints[f.name])
            for v in value.values() if isinstance(value, Mapping) else (value,):
                _within(v, f.metadata)
            setattr(instance, f.name, value)
        except ValueError as e:
            wrong.append(f"{f.name}={getattr(instance, f.name)!r}: {e}")
    if wrong:
        raise ValueError("; ".join(wrong))


def _within(value: Any, bounds: Mapping[str, float]) -> None:
    for key, bound in bounds.items():
        holds, words = BOUNDS[key]
        if value is not None and not holds(value, bound):
            raise ValueError(f"must be {words} {bound:g}")


def _typed(value: Any, kind: Any) -> Any:
    origin = get_origin(kind)
    if origin is Literal:
        if value not in get_args(kind) or isinstance(value, bool):
            raise ValueError(f"must be one of {', '.join(map(str, get_args(kind)))}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        return _typed(value, next(k for k in get_args(kind) if k is not type(None)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError("must be a mapping")
        return {str(k): _typed(v, get_args(kind)[1]) for k, v in value.items()}
    if origin is list:
        if not isinstance(value, (list, tuple)):
            raise ValueError("must be a list")
        return [_typed(v, get_args(kind)[0]) for v in value]
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError("must be finite")
        return float(value)
    if (
        kind is not float
        and isinstance(value, kind)
        and (kind is bool or (value is not True and value is not False))
    ):
        return value
    raise ValueError(f"must be {_name(kind)}")


def _name(kind: type) -> str:
    return {float: "a number", int: "a whole number", str: "a word", bool: "true or false"}[kind]
