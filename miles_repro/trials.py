"""Random search without a search service: what a trial's number stands for."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from miles_repro.errors import UserError
from miles_repro.records import load_summaries


SEARCHED = ("strategy", "fusion", "optimizer")
"""Groups whose choices may have a search space."""


def draw(space: Any, dataset: str, fusion: str, strategy: str, key: str, trial: int) -> Any:
    """The value of ``key`` in random trial ``trial`` >= 1.

    Each value has its own generator, seeded by the names and the trial: a search can be run in
    any order, extended or resumed, and a new parameter leaves the others' draws alone.
    """
    text = "|".join((dataset, fusion, strategy, key, str(trial)))
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
    """The ``search`` blocks of strategy, fusion and optimizer: full key -> space."""
    return {
        f"{group}.{name}": space
        for group in SEARCHED
        for name, space in (raw[group].get("search") or {}).items()
        if space is not None
    }


def without_search(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration less its ``search`` blocks, ``rates: records`` filled in from records."""
    plain = dict(raw)
    for group in SEARCHED:
        plain[group] = {k: v for k, v in raw[group].items() if k != "search"}
    if plain["strategy"].get("rates") == "records":
        plain["strategy"]["rates"] = best_rates(plain)
    return plain


def trial_values(
    raw: Mapping[str, Any], spaces: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
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
    from miles_repro.selection import best_trial

    records = load_summaries(Path(raw["runtime"]["runs_dir"]).joinpath(*cell), depth=1)
    budget = raw["budget"]["name"]
    if raw["strategy"].get("source") == "train":
        return _winner_on_training_metrics(records, cell, budget)
    return best_trial(records, *cell, budget)


def _winner_on_training_metrics(
    records: Sequence[Mapping[str, Any]], cell: tuple[str, str, str], budget: str
) -> int:
    """The paper's Table VI: scheduled by training metrics, re-tuned, so with its own winner."""
    from miles_repro.selection import select, source

    own = [r for r in records if source(r) == "train" and r["budget"] == budget and not r["pinned"]]
    if not own:
        raise UserError(
            f"no finished run of {' '.join(cell)} with strategy.source=train budget={budget} to "
            "choose the best trial from: run its trials first"
        )
    return select(own)[0].trial


def best_rates(raw: Mapping[str, Any]) -> dict[str, float]:
    """The best unimodal learning rates (modality -> rate) in the records, by validation."""
    from miles_repro.selection import best_unimodal_lr

    dataset, budget = raw["dataset"]["name"], raw["budget"]["name"]
    modalities = raw["dataset"]["modalities"]
    root = Path(raw["runtime"]["runs_dir"]) / dataset / "concat"
    records = [r for m in modalities for r in load_summaries(root / f"unimodal_{m}", depth=1)]
    return {m: best_unimodal_lr(records, dataset, budget, m)[0] for m in modalities}
