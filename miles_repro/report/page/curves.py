"""Epochs of a cell: means over its decision seeds, with 95 % intervals as bands."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from miles_repro.selection import Cell, Study, setting
from miles_repro.stats import mean_ci

POINTS = 32
"""Most epochs shown of a longer training."""

Line = Mapping[str, Any]
Reader = Callable[[Line], float | None]


def curves(
    study: Study, cell: Cell, rows: Mapping[str, Sequence[Line]], points: int = POINTS
) -> dict[str, Any] | None:
    """Validation metric per head (mean and half interval, percent), utilization and discrepancy,
    and each encoder's rate as a share of the configured one, where any moves. None without epochs.

    Over the epochs that every run has, so no mean is over other seeds than its neighbour.
    """
    runs = [found for run in cell.runs if (found := rows.get(run["run_id"]))]
    if not runs:
        return None
    length = min(map(len, runs))
    steps = sorted({round(i * (length - 1) / max(1, points - 1)) for i in range(points)})
    rate = setting(cell.runs[0], "optimizer", "lr")

    def read(reader: Reader, digits: int) -> list[list[float | None]] | None:
        found = [_mean([reader(run[i]) for run in runs], digits) for i in steps]
        return (
            [list(part) for part in zip(*found, strict=True)] if any(m for m, _ in found) else None
        )

    def means(readers: Mapping[str, Reader]) -> dict[str, list[float | None]]:
        return {name: found[0] for name, reader in readers.items() if (found := read(reader, 3))}

    rates = means({m: _rate(m, rate) for m in study.modalities})
    heads = {h: read(_head(h), 1) for h in ("fused", *study.modalities)}
    return {
        "n": len(runs),
        "epochs": [runs[0][i]["epoch"] for i in steps],
        "heads": {h: found for h, found in heads.items() if found},
        "used": means({m: _used(m) for m in (*study.modalities, "delta")}),
        "rates": rates if len({value for found in rates.values() for value in found}) > 1 else {},
    }


def _mean(values: Sequence[float | None], digits: int) -> tuple[float | None, float | None]:
    known = [v for v in values if v is not None and math.isfinite(v)]
    if len(known) < len(values):
        return None, None
    found = mean_ci(known)
    half = None if found.half is None else round(found.half, digits)
    return round(found.mean, digits), half


def _head(name: str) -> Reader:
    def read(line: Line) -> float | None:
        value = line.get("val", {}).get(name, {}).get("metric")
        return None if value is None else 100 * float(value)

    return read


def _used(name: str) -> Reader:
    return lambda line: (line.get("utilization") or {}).get(name)


def _rate(modality: str, base: float | None) -> Reader:
    def read(line: Line) -> float | None:
        value = line.get("lr", {}).get(f"encoder.{modality}")
        return None if value is None or not base else float(value) / base

    return read
