"""One run of the protocol, and the stages that they come in."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


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

    @property
    def line(self) -> str:
        """All its overrides, as a line of ``hydra.sweeper.jobs``."""
        return shlex.join([*self.overrides, f"trial={self.trial}", f"seed={self.seed}"])

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
