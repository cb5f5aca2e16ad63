"""A protocol on the tiny data set, and a launcher that needs no process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from commands import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from miles_repro.protocol.jobs import Job, Stage
from miles_repro.protocol.stages import Protocol, Request
from miles_repro.run import run

Make = Callable[..., Protocol]


def protocol_on(data: Path, runs: Path, *strategies: str, **changes: Any) -> Protocol:
    """The tiny data set at budget=smoke (2 trials, 2 decision seeds) with both fusions."""
    where = (f"runtime.data_dir={data}", f"runtime.runs_dir={runs}")
    asked = {"budget": "smoke", "datasets": ("tiny",), "strategies": strategies} | changes
    asked["overrides"] = tuple(hydra(*where, *asked.get("overrides", ())))
    return Protocol(Request(**asked))


def expand(grid: list[str]) -> Iterator[tuple[str, ...]]:
    """The jobs Hydra makes of a sweep's overrides."""
    parsed = OverridesParser.create().parse_overrides(grid)
    for batch in BasicSweeper.split_arguments(parsed, None):
        yield from map(tuple, batch)


def jobs_in(overrides: list[str], protocol: Protocol) -> list[Job]:
    """The jobs of a sweep that the protocol's launcher was asked for."""
    found = []
    for chosen in expand([o for o in overrides if o not in protocol.request.common]):
        values = dict(o.split("=", 1) for o in chosen)
        trial, seed = values.pop("trial"), int(values.pop("seed"))
        fixed = [(k, v) for k, v in values.items() if "." in k]
        found.append(
            Job(
                values["dataset"],
                values["strategy"],
                values["fusion"],
                trial if trial == "best" else int(trial),
                seed,
                fixed[0] if fixed else ("", ""),
            )
        )
    return found


def in_process(protocol: Protocol) -> Callable[[list[str]], None]:
    """A launcher without processes: runs every job of the sweep here."""

    def start(overrides: list[str]) -> None:
        for job in jobs_in(overrides, protocol):
            run(protocol.config(job), "test")

    return start


def jobs_of(protocol: Protocol, dataset: str = "tiny") -> dict[str, tuple[Job, ...]]:
    return {stage.name: stage.jobs for stage in protocol.stages(dataset)}


def stage_of(*jobs: Job) -> Stage:
    return Stage("test", jobs)
