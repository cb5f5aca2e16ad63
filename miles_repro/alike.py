"""What the configurations of runs have in common. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]
FREE = ("fusion", "strategy", "seed", "trial", "pinned", "optimizer.lr")
"""What the runs of one comparison may differ in: method, seed, trial and rate."""


def protocol(record: Record) -> str:
    """What all runs of one comparison share."""
    return f"{record['data_fingerprint']} {same_but(record, *FREE)}"


def same_but(record: Record, *paths: str) -> str:
    """Canonical text of a run's configuration without `paths` (``seed``, ``strategy.tau``)."""
    config = {k: dict(v) if isinstance(v, Mapping) else v for k, v in record["config"].items()}
    for path in (*paths, "teachers") if "seed" in paths else paths:  # they are runs of that seed
        section, _, key = path.partition(".")
        if not key:
            config.pop(section, None)
        elif isinstance(config.get(section), dict):
            config[section].pop(key, None)
    return json.dumps(config, sort_keys=True, default=str)


def all_same_but(records: Sequence[Record], *paths: str) -> list[str]:
    """`same_but` of each, once for those whose configurations are the same objects in memory."""
    free = {*paths, "teachers"} if "seed" in paths else set(paths)
    texts: dict[tuple[Any, ...], str] = {}
    found = []
    for record in records:
        parts = tuple(
            (k, id(v) if isinstance(v, (dict, list)) else (type(v), v))
            for k, v in record["config"].items()
            if k not in free
        )
        if parts not in texts:
            texts[parts] = same_but(record, *paths)
        found.append(texts[parts])
    return found
