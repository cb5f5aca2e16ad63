"""A run record as a tracker sees it: pure functions from dicts to flat dicts, no tracker import.

Keys have the form ``split/output/metric``, where the metric goes by its own name (``accuracy``,
``f1_micro``); all test numbers are under ``test/``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from miles_repro.errors import UserError
from miles_repro.selection import SEARCH_SEED

_SHORT = (
    *("run_id", "dataset", "fusion", "strategy", "label", "family", "trial", "seed", "budget"),
    *("metric", "commit", "dirty", "command"),
)
_SAID = ("dataset", "fusion", "strategy", "strategy.modality", "trial", "seed", "budget")
_ELSEWHERE = ("keep", "rerun", "tracker", "runtime", "hydra")  # they move no number
NAME_LENGTH = 128  # the longest that W&B shows


def run_fields(options: Mapping[str, Any], header: Mapping[str, Any]) -> dict[str, Any]:
    """Identity of the W&B run: id, name, group, job_type, tags, notes, config.

    Raises:
        UserError: the tags are no list of text.
    """
    h = header
    words = [h["strategy"], f"t{h['trial']}", f"s{h['seed']}", f"{h['dataset']}/{h['fusion']}"]
    return {
        "id": h["run_id"],
        "name": " ".join([*words, *own_overrides(h["command"])])[:NAME_LENGTH],
        "group": "/".join(h[key] for key in ("dataset", "budget", "fusion", "strategy")),
        "job_type": job_type(header),
        "tags": [str(h["budget"]), *_tags(options.get("tags"))],
        "notes": options.get("notes") or None,
        "config": flat_config(header),
    }


def _tags(asked: object) -> list[str]:
    tags = [] if asked is None else asked
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise UserError(f"tracker.tags={tags}: give a list of text, as tracker.tags=[first-try]")
    return tags


def own_overrides(command: str) -> list[str]:
    """The overrides of a command line that tell its runs apart beyond cell, trial and seed."""
    found = []
    for word in command.split():
        key, given, _ = word.lstrip("+").partition("=")
        if given and key not in _SAID and re.split("[./]", key)[0] not in _ELSEWHERE:
            found.append(word)
    return found


def job_type(header: Mapping[str, Any]) -> str:
    """The run's part in the protocol: search, winner, decision (a seed more) or ablation."""
    strategy = header["config"].get("strategy") or {}
    if header["pinned"] or strategy.get("source") == "train":
        return "ablation"
    if header["seed"] == SEARCH_SEED:
        return "search"
    return "winner" if header["seed"] <= (header.get("seeds") or header["seed"]) else "decision"


def artifact_name(header: Mapping[str, Any]) -> str:
    """The artifact that holds the records of a cell: a version a run, its alias the run's id."""
    cell = (header["dataset"], header["budget"], header["fusion"], header["strategy"])
    return "record." + ".".join(name.replace("+", "_") for name in cell)


def flat_config(header: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved configuration with ``a/b/c`` keys, and short columns for the run table."""
    return {**flatten(header["config"]), **{key: header[key] for key in _SHORT}}


def history_row(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """One epoch: ``train/…``, ``val/…``, ``utilization/u_<m>``, ``lr/<group>``, ``strategy/…``."""
    return _flat({**row, "utilization": _rates(row.get("utilization"))}, metric)


def summary_values(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The end of a run: the best epoch's validation scores, everything measured on the test
    split, costs. ``val/score`` and ``test/score``: the fused headline whatever its name is."""
    metric = summary["metric"]
    found: dict[str, Any] = {
        "utilization": _rates(summary["utilization"]["val"]),
        "cost": summary["cost"],
        **{key: summary[key] for key in ("best_epoch", "epochs", "status", "metric")},
    }
    for split in ("val", "test"):
        tools = {name: scores[split] for name, scores in summary["instruments"].items()}
        score = summary[split]["fused"]["metric"]
        found[split] = {"score": score, **summary[split], **tools}
    found["test"] |= {
        "gap": summary["gap"],
        "utilization": _rates(summary["utilization"]["test"]),
        "missing": summary["missing"],
        "noise": summary["noise"],
    }
    return _flat(found, metric)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one level with ``/`` between the names; everything else stays as it is."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(flatten(inner, f"{prefix}/{key}" if prefix else str(key)))
    return flat


def _flat(value: Mapping[str, Any], metric: str) -> dict[str, Any]:
    """Flat, without what is unknown, the headline under its own name."""
    return {
        f"{key.removesuffix('metric')}{metric}" if key.endswith("/metric") else key: x
        for key, x in flatten(value).items()
        if x is not None
    }


def _rates(values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k if k == "delta" else f"u_{k}": x for k, x in (values or {}).items()}
