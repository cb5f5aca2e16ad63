"""Random search without a search service: what a trial's number stands for."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miles_repro.errors import UserError
from miles_repro.records import load_summaries

SEARCH_SEED = 0
"""The seed of every trial. Winners are judged on other seeds, which had no say in the choice."""


def draw(space: Any, dataset: str, fusion: str, strategy: str, key: str, trial: int) -> Any:
    """The value of ``key`` in random trial ``trial`` >= 1.

    Each value has its own generator, seeded by the names and the trial: a search can be run in
    any order, extended or resumed, and a new parameter leaves the others' draws alone. The
    optimizer's values are common random numbers: trial k has the same learning rate for every
    strategy and fusion of a data set, so none owes its place to luckier rates.
    """
    method = () if key.startswith("optimizer.") else (fusion, strategy)
    text = "|".join((dataset, *method, key, str(trial)))
    rng = random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big"))
    if isinstance(space, list):
        return rng.choice(space)
    kind, (low, high) = next(iter(space.items()))
    if kind == "log_uniform":
        return math.exp(rng.uniform(math.log(low), math.log(high)))
    if kind == "uniform":
        return rng.uniform(low, high)
    raise UserError(f"search space of {key}: {kind!r} is not a list, uniform or log_uniform")


def search_spaces(raw: dict[str, Any]) -> dict[str, Any]:
    """Take the ``search`` blocks out of strategy, optimizer and budget: full key -> space.

    The budget's holds the ranges that the optimizer's refer to. What a strategy is called in
    tables goes too: it moves no number.
    """
    raw["budget"].pop("search", None)
    for word in ("label", "family"):
        raw["strategy"].pop(word, None)
    return {
        f"{group}.{name}": space
        for group in ("strategy", "optimizer")
        for name, space in (raw[group].pop("search", None) or {}).items()
        if space is not None
    }


def fill_in(raw: dict[str, Any], spaces: Mapping[str, Any]) -> None:
    """Put the trial's values into a composed configuration, in place.

    Trial 0 keeps the documented defaults; ``best`` becomes the number of the trial that won by
    validation; keys in ``raw["pinned"]`` stay as they are; ``strategy.rates: records`` becomes
    the best unimodal learning rates found so far.
    """
    cell = (raw["dataset"]["name"], raw["fusion"]["name"], raw["strategy"]["name"])
    if raw["trial"] == "best":
        raw["trial"] = _winner(raw, cell)
    for key, space in spaces.items():
        if isinstance(raw["trial"], int) and raw["trial"] >= 1 and key not in raw["pinned"]:
            group, name = key.split(".", 1)
            raw[group][name] = draw(space, *cell, key, raw["trial"])
    if raw["strategy"].get("rates") == "records":
        raw["strategy"]["rates"] = best_rates(raw)


def _winner(raw: dict[str, Any], cell: tuple[str, str, str]) -> int:
    """The trial that won on the search seed, among runs of the asking run's protocol."""
    from miles_repro.selection import best_trial, select, source

    own = source({"config": raw})
    budget = raw["budget"]["name"]
    records = [r for r in _comparable(raw, cell, budget) if source(r) == own]
    if own == "val":
        return best_trial(records, *cell, budget)
    if not records:  # the paper's Table VI: scheduled by training metrics, re-tuned
        raise UserError(
            f"no finished run of {' '.join(cell)} with strategy.source={own} budget={budget} to "
            "choose the best trial from: run its trials first"
        )
    return select(records)[0].trial


def best_rates(raw: dict[str, Any]) -> dict[str, float]:
    """The best unimodal learning rates (modality -> rate) in the records, by validation.

    From the search runs of the asking run's protocol alone: Adam's rates mean nothing to SGD.
    """
    from miles_repro.selection import best_unimodal_lr

    dataset, budget = raw["dataset"]["name"], raw["budget"]["name"]
    found = {}
    for m in raw["dataset"]["modalities"]:
        records = _comparable(raw, (dataset, "concat", f"unimodal_{m}"), budget)
        found[m] = best_unimodal_lr(records, dataset, budget, m)[0]
    return found


def _comparable(
    raw: dict[str, Any], cell: tuple[str, str, str], budget: str
) -> list[dict[str, Any]]:
    """Search runs of a cell that share the asking run's protocol, none with values set by hand.

    Raises UserError where the cell has such runs, but all under other protocols.
    """
    from miles_repro.selection import protocol

    folder = Path(raw["runtime"]["runs_dir"]).joinpath(*cell)
    search = [
        r
        for r in load_summaries(folder)
        if r["budget"] == budget and r["seed"] == SEARCH_SEED and not r["pinned"]
    ]
    if not search:
        return []
    asking = _as_record(raw)
    same = [r for r in search if protocol(r) == protocol(asking)]
    if not same:
        raise UserError(
            f"{' '.join(cell)}: none of its {len(search)} finished trials was run like this run "
            f"({_difference(asking, search[-1])}): run its trials with the same options first"
        )
    return same


def _as_record(raw: dict[str, Any]) -> dict[str, Any]:
    """The asking run as its record would describe it, as far as runs of one protocol share it."""
    from pydantic import ValidationError

    from miles_repro.config import Config, explain
    from miles_repro.data.manifest import read_manifest

    folder = Path(raw["runtime"]["data_dir"]) / raw["dataset"]["name"]
    fingerprint = read_manifest(folder)["fingerprint"]
    values = raw | {"trial": 0, "pinned": [], "data_fingerprint": fingerprint}
    known = {k: v for k, v in values.items() if k in Config.model_fields}
    try:
        config = Config.model_validate(known)
    except ValidationError as e:
        raise UserError(explain(e)) from None
    return {"config": config.identity(), "data_fingerprint": fingerprint}


def _difference(asking: dict[str, Any], other: dict[str, Any]) -> str:
    """Where two runs' protocols differ: the keys, at most four."""

    def leaves(value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {key: value}
        return {k: v for name in value for k, v in leaves(value[name], f"{key}.{name}").items()}

    mine, theirs = (
        {
            k: v
            for section, values in {"data": r["data_fingerprint"], **r["config"]}.items()
            if section not in ("fusion", "strategy", "seed", "trial", "pinned")
            for k, v in leaves(values, section).items()
            if k != "optimizer.lr"
        }
        for r in (asking, other)
    )
    keys = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
    more = ", .." if len(keys) > 4 else ""
    return f"different: {', '.join(keys[:4])}{more}"
