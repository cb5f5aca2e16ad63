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


def search_spaces(raw: dict[str, Any]) -> dict[str, Any]:
    """Take the ``search`` blocks out of strategy and optimizer: full key -> space.

    What a strategy is called in tables goes too: it moves no number.
    """
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
    from miles_repro.selection import best_trial

    records = load_summaries(Path(raw["runtime"]["runs_dir"]).joinpath(*cell))
    budget = raw["budget"]["name"]
    if raw["strategy"].get("source") == "train":
        return _winner_on_training_metrics(records, cell, budget)
    return best_trial(records, *cell, budget)


def _winner_on_training_metrics(
    records: list[dict[str, Any]], cell: tuple[str, str, str], budget: str
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


def best_rates(raw: dict[str, Any]) -> dict[str, float]:
    """The best unimodal learning rates (modality -> rate) in the records, by validation."""
    from miles_repro.selection import best_unimodal_lr

    dataset, budget = raw["dataset"]["name"], raw["budget"]["name"]
    modalities = raw["dataset"]["modalities"]
    root = Path(raw["runtime"]["runs_dir"]) / dataset / "concat"
    records = [r for m in modalities for r in load_summaries(root / f"unimodal_{m}")]
    return {m: best_unimodal_lr(records, dataset, budget, m)[0] for m in modalities}
