"""One run of the protocol, and many of them as few sweeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """One run: choices of the configuration.

    fixed: a value set by hand, for an ablation, or the modality of a unimodal run;
    held: an override that stays the same along an ablation.
    """

    dataset: str
    strategy: str
    fusion: str
    trial: int | str
    seed: int
    fixed: tuple[str, str] = ("", "")
    held: str = ""

    @property
    def row(self) -> str:
        """The strategy as its records name it."""
        key, value = self.fixed
        return f"{self.strategy}_{value}" if key == "strategy.modality" else self.strategy

    @property
    def cell(self) -> tuple[str, str, str]:
        return self.dataset, self.fusion, self.row

    @property
    def overrides(self) -> list[str]:
        chosen = [f"dataset={self.dataset}", f"strategy={self.strategy}", f"fusion={self.fusion}"]
        fixed = [f"{self.fixed[0]}={self.fixed[1]}"] if self.fixed[0] else []
        return [*chosen, *fixed, *([self.held] if self.held else [])]

    def __str__(self) -> str:
        fixed = "".join(f" {one}" for one in self.overrides[3:])
        return (
            f"{self.dataset} {self.fusion} {self.strategy}{fixed} "
            f"trial={self.trial} seed={self.seed}"
        )


@dataclass(frozen=True)
class Stage:
    name: str
    jobs: tuple[Job, ...]


def boxes(jobs: Iterable[Job]) -> list[list[str]]:
    """Cover the jobs, and nothing else, with few full grids: the overrides of one sweep each."""
    axes = ("trial", "seed", "held", "fixed", "fusion", "strategy", "dataset")
    order = {job: i for i, job in enumerate(jobs)}
    grids = {tuple(frozenset([getattr(job, axis)]) for axis in axes): i for job, i in order.items()}
    for axis in range(len(axes)):
        merged: defaultdict[tuple[Any, ...], frozenset[Any]] = defaultdict(frozenset)
        first: dict[tuple[Any, ...], int] = {}
        for grid, i in grids.items():
            # Values of different keys are no axis of one grid.
            kind: Iterable[Any] = ()
            if axes[axis] == "fixed":
                kind = {key for key, _ in grid[axis]}
            elif axes[axis] == "held":
                kind = grid[axis]
            key = (grid[:axis], grid[axis + 1 :], frozenset(kind))
            merged[key] |= grid[axis]
            first[key] = min(i, first.get(key, i))
        grids = {(*k[0], values, *k[1]): first[k] for k, values in merged.items()}
    return [_as_overrides(axes, grid) for grid in sorted(grids, key=lambda grid: grids[grid])]


def _as_overrides(axes: tuple[str, ...], grid: tuple[frozenset[Any], ...]) -> list[str]:
    """Outermost axis first: all cells get their first trials before any gets its last."""
    found = []
    for axis, values in zip(axes, grid, strict=True):
        if axis == "held":
            found += [value for value in values if value]
        elif axis != "fixed":
            found.append(f"{axis}={','.join(str(v) for v in sorted(values))}")
        elif any(key for key, _ in values):
            key = next(iter(values))[0]
            found.append(f"{key}={','.join(sorted(value for _, value in values))}")
    return found
