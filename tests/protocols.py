"""A protocol on the tiny data set, and a launcher that needs no process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from commands import hydra

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


def in_process(protocol: Protocol) -> Callable[[Sequence[Job]], None]:
    """A launcher without processes: runs every job of the sweep here."""

    def start(jobs: Sequence[Job]) -> None:
        for job in jobs:
            run(protocol.config(job), "test")

    return start


def jobs_of(protocol: Protocol, dataset: str = "tiny") -> dict[str, tuple[Job, ...]]:
    return {stage.name: stage.jobs for stage in protocol.stages(dataset)}


def stage_of(*jobs: Job) -> Stage:
    return Stage("test", jobs)
