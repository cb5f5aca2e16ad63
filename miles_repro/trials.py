"""Random search without a search service: what a trial's number stands for."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miles_repro.errors import UserError
from miles_repro.records import Summary, load_summaries

SEARCH_SEED = 0
"""The seed of every trial. Winners are judged on other seeds, which had no say in the choice."""


SEARCHED = ("strategy", "fusion", "optimizer")
"""Groups whose choices may have a search space."""


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


def search_spaces(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The ``search`` blocks of strategy, fusion and optimizer: full key -> space.

    The budget's holds the ranges that the optimizer's refer to.
    """
    return {
        f"{group}.{name}": space
        for group in SEARCHED
        for name, space in (raw[group].get("search") or {}).items()
        if space is not None
    }


def without_search(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration less its ``search`` blocks, with what only records can tell filled in.

    That is ``rates: records``, and a ``modality`` that is null: the strong one of a data set
    that declares none.
    """
    plain = dict(raw)
    for group in (*SEARCHED, "budget"):
        plain[group] = {k: v for k, v in raw[group].items() if k != "search"}
    if plain["strategy"].get("rates") == "records":
        plain["strategy"]["rates"] = best_rates(plain)
    if plain["strategy"].get("modality", "") is None:
        plain["strategy"]["modality"] = strongest(plain)
    return plain


def trial_values(raw: Mapping[str, Any], spaces: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """The number of the trial asked for and what it draws: full key -> value.

    Trial 0 draws nothing and keeps the documented defaults; ``best`` is the trial that won by
    validation.
    """
    cell = (raw["dataset"]["name"], raw["fusion"]["name"], raw["strategy"]["name"])
    trial = _winner(raw, cell) if raw["trial"] == "best" else raw["trial"]
    if trial == 0:
        return 0, {}
    return trial, {key: draw(space, *cell, key, trial) for key, space in spaces.items()}


def with_values(raw: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with these values by full key."""
    filled = dict(raw)
    for key, value in values.items():
        group, name = key.split(".", 1)
        filled[group] = {**filled[group], name: value}
    return filled


def best_or_default(raw: Mapping[str, Any]) -> int:
    """The winning trial of the configuration's cell, 0 where nothing was searched yet."""
    cell = (raw["dataset"]["name"], raw["fusion"]["name"], raw["strategy"]["name"])
    try:
        return _winner(raw, cell)
    except UserError:
        return 0


def _winner(raw: Mapping[str, Any], cell: tuple[str, str, str]) -> int:
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


def best_rates(raw: Mapping[str, Any]) -> dict[str, float]:
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


def strongest(raw: Mapping[str, Any]) -> str:
    """The modality whose best unimodal search run is best, by validation.

    Raises UserError where not every modality has one.
    """
    dataset, budget = raw["dataset"]["name"], raw["budget"]["name"]

    def score(m: str) -> float:
        records = _comparable(raw, (dataset, "concat", f"unimodal_{m}"), budget)
        if not records:
            raise UserError(
                f"no finished run of dataset={dataset} strategy=unimodal_{m} budget={budget} to "
                "tell the strong modality by: run it first, or set dataset.strong"
            )
        return max(r["val"]["fused"]["metric"] or 0.0 for r in records)

    return max(raw["dataset"]["modalities"], key=score)


def _comparable(raw: Mapping[str, Any], cell: tuple[str, str, str], budget: str) -> list[Summary]:
    """Search runs of a cell that share the asking run's protocol, none with values set by hand.

    Raises UserError where the cell has such runs, but all under other protocols.
    """
    from miles_repro.alike import protocol

    folder = Path(raw["runtime"]["runs_dir"]).joinpath(*cell)
    search = [
        r
        for r in load_summaries(folder, depth=1)
        if r["budget"] == budget and r["seed"] == SEARCH_SEED and not r["pinned"]
    ]
    if not search:
        return []
    asking = _as_record(raw)
    own = protocol(asking)
    same = [r for r in search if protocol(r) == own]
    if not same:
        raise UserError(
            f"{' '.join(cell)}: none of its {len(search)} finished trials was run like this run "
            f"({_difference(asking, search[-1])}): run its trials with the same options first"
        )
    return same


def _as_record(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The asking run as its record would describe it, as far as runs of one protocol share it."""
    from pydantic import ValidationError

    from miles_repro.config import Config, explain
    from miles_repro.data.manifest import read_manifest

    folder = Path(raw["runtime"]["data_dir"]) / raw["dataset"]["name"]
    fingerprint = read_manifest(folder)["fingerprint"]
    values = {**raw, "trial": 0, "data_fingerprint": fingerprint}
    known = {k: v for k, v in values.items() if k in Config.model_fields}
    try:
        config = Config.model_validate(known)
    except ValidationError as e:
        raise UserError(explain(e)) from None
    return {"config": config.identity(), "data_fingerprint": fingerprint}


def _difference(asking: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Where two runs' protocols differ: the keys, at most four."""

    def leaves(value: Any, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {key: value}
        return {k: v for name in value for k, v in leaves(value[name], f"{key}.{name}").items()}

    mine, theirs = (
        {
            k: v
            for section, values in {"data": r["data_fingerprint"], **r["config"]}.items()
            if section not in ("fusion", "strategy", "seed", "trial", "pinned", "teachers")
            for k, v in leaves(values, section).items()
            if k != "optimizer.lr"
        }
        for r in (asking, other)
    )
    keys = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k))
    more = ", .." if len(keys) > 4 else ""
    return f"different: {', '.join(keys[:4])}{more}"
