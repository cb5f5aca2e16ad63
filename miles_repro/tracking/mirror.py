"""A run record as W&B sees it: pure functions from dicts to flat dicts, no W&B import.

Keys have the form ``split/output/metric`` and keep the names of the record, so a chart in W&B and a
line in ``metrics.jsonl`` are easily held side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miles_repro.records import Summary, parse_summary, to_json

# Summary key that holds the whole summary.json, so that tables can be rebuilt from W&B alone.
RECORD_KEY = "record"
OBJECTIVE = "val/fused/metric"
_SHORT = ("run_id", "dataset", "fusion", "strategy", "trial", "seed", "budget")


def run_fields(config: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Identity of the W&B run: id, name, group, job_type, tags, notes, config."""
    h = header
    return {
        "id": h["run_id"],
        "name": f"{h['strategy']} t{h['trial']} s{h['seed']} {h['dataset']}/{h['fusion']}",
        "group": f"{h['dataset']}/{h['fusion']}",
        "job_type": h["strategy"],
        "tags": [str(h["budget"]), *map(str, config.get("tags") or [])],
        "notes": config.get("notes") or None,
        "config": flat_config(header),
    }


def flat_config(header: dict[str, Any]) -> dict[str, Any]:
    """The resolved configuration with ``a/b/c`` keys, and seven short columns for the run table."""
    short = {key: header[key] for key in _SHORT}
    return {**flatten(header["config"]), **short, "command": header["command"]}


def history_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """One epoch: ``train/…``, ``val/…``, ``utilization/u_<m>``, ``lr/<group>``, ``strategy/…``."""
    flat = flatten({k: v for k, v in row.items() if k != "utilization"})
    return _known({**flat, **_utilization("utilization", row.get("utilization"))})


def summary_values(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The end of a run: best epoch, validation and test scores, robustness, cost, the record."""
    flat = flatten({k: summary.get(k) for k in ("val", "test", "missing", "noise", "cost")})
    for split, values in (summary.get("utilization") or {}).items():
        flat.update(_utilization(f"utilization/{split}", values))
    flat.update({k: summary.get(k) for k in ("best_epoch", "epochs", "gap", "status", "metric")})
    return {**_known(flat), RECORD_KEY: to_json(summary)}


def record_of(summary: Mapping[str, Any]) -> Summary | None:
    """The ``summary.json`` inside a W&B run's summary; None where a run has not finished.

    Raises:
        NotASummary: it is none that this version can use.
    """
    text = summary.get(RECORD_KEY)
    return parse_summary(text) if isinstance(text, str) else None


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one level with ``/`` between the names; everything else stays as it is."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat.update(flatten(inner, f"{prefix}/{key}" if prefix else str(key)))
    return flat


def _utilization(prefix: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        f"{prefix}/{name if name == 'delta' else f'u_{name}'}": value
        for name, value in (values or {}).items()
    }


def _known(flat: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flat.items() if value is not None}
