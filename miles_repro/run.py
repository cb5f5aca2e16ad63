"""One run from configuration to record: skip if done, build, fit, select, test once, write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from miles_repro import records
from miles_repro.config import Config, build, check_combination
from miles_repro.errors import UserError, one_line

Job = tuple[Config, Any, list[str], records.RunRecord]
"""A checked configuration with its strategy, the modalities it uses and its record."""

Report = Callable[[Config, dict[str, Any]], None]
"""Called after each epoch of a run with its configuration and the epoch's row."""

SAVE_EVERY_S = 1.0
"""A state to resume from is saved at most this often: all that a kill costs beside its epoch."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done`` (trained now), ``skipped`` (was done) or ``busy`` (elsewhere)."""

    status: str
    config: Config
    summary: dict[str, Any] | None = None


def run(config: Config, command: str, report: Report = lambda config, row: None) -> Outcome:
    """Train and test one configuration unless its record is finished.

    Raises:
        UserError: the combination is not defined, or the data or the disk fail.
    """
    return run_all([config], command, report)[0]


def run_all(
    configs: Sequence[Config], command: str, report: Report = lambda config, row: None
) -> list[Outcome]:
    """As :func:`run`, for one configuration or a stack of them (:mod:`miles_repro.stacked`)."""
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as leases:
        mine: list[Job] = []
        for config in configs:
            if summary := records.read_summary(config.run_dir):
                outcomes[config.run_id] = _skipped(config, summary)
                continue
            strategy, used = _checked(config)
            record = records.RunRecord(config.run_dir)
            if not leases.enter_context(record.lease()):
                outcomes[config.run_id] = Outcome("busy", config)
            elif summary := records.read_summary(config.run_dir):  # finished while we waited
                outcomes[config.run_id] = _skipped(config, summary)
            else:
                record.write_config(config.identity())
                mine.append((config, strategy, used, record))
        if mine:
            for (config, *_), summary in zip(mine, _train(mine, command, report), strict=True):
                outcomes[config.run_id] = Outcome("done", config, summary)
    return [outcomes[config.run_id] for config in configs]


def _skipped(config: Config, summary: dict[str, Any]) -> Outcome:
    from miles_repro import tracking

    tracking.repeat(config.tracker, summary, config.run_dir)
    return Outcome("skipped", config, summary)


def check(config: Config) -> None:
    """Raises UserError where strategy, fusion and task do not go together, with the reason."""
    _checked(config)


def _checked(config: Config) -> tuple[Any, list[str]]:
    """The strategy, after every check that needs no data."""
    from hydra.utils import get_object

    strategy = build(config.strategy)
    try:
        fusion = get_object(config.fusion["_target_"])
    except Exception as e:
        name = config.fusion["name"]
        raise UserError(f"fusion {name}: cannot be imported: {one_line(e)}") from None
    return strategy, check_combination(config, strategy, fusion)


def _train(jobs: Sequence[Job], command: str, report: Report) -> list[dict[str, Any]]:
    """Train and test one run, or a stack, to the summaries of their records."""
    import torch

    from miles_repro.data.reader import PreparedData
    from miles_repro.training import Training, usable_device

    config, _, used, _ = jobs[0]  # a stack's others differ in seed and trial alone
    torch.set_num_threads(config.runtime.threads)
    device = usable_device(config.runtime.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    data = PreparedData(config.runtime.data_dir / config.dataset.name, config.dataset.scheme, used)
    part = cache(
        partial(
            data.part,
            device=device,
            resident_mb=config.runtime.resident_mb,
            fraction=config.budget.data_fraction,
        )
    )
    with ExitStack() as stack:
        trainings = [
            stack.enter_context(
                Training(*job, command, data.stand_in, part, device, share=1 / len(jobs))
            )
            for job in jobs
        ]
        if config.stacked:
            from miles_repro import stacked

            epochs = stacked.epochs([t.fit for t in trainings])
        else:
            epochs = ([(0, row)] for row in trainings[0].fit.epochs())
        saved = time.perf_counter()
        for rows in epochs:
            for i, row in rows:
                trainings[i].keep(row)
            if time.perf_counter() - saved >= SAVE_EVERY_S:
                for i, _ in rows:  # all at the same epoch: they go on together
                    trainings[i].save()
                saved = time.perf_counter()
            for i, row in rows:
                report(trainings[i].config, row)
        return [t.finish() for t in trainings]
