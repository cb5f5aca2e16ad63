"""One run from configuration to record: skip if done, build, fit, select, test once, write."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from miles_repro import provenance
from miles_repro.api import Verb
from miles_repro.composing import check_combination
from miles_repro.config import Config, build, target
from miles_repro.records import WEIGHTS, RunRecord, read_summary

if TYPE_CHECKING:
    from miles_repro.context import Teacher

Report = Callable[[Config, dict[str, Any]], None]
"""Called after each epoch of a run with its configuration and the epoch's row."""

SAVE_EVERY_S = 1.0
"""A state to resume from is saved at most this often: all that a kill costs beside its epoch."""
TEACHER_POLL_S = 2.0


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done`` (trained now), ``skipped`` (was done) or ``busy`` (elsewhere).

    stale: sources that have changed since a skipped run was made.
    """

    status: str
    config: Config
    summary: Mapping[str, Any] | None = None
    stale: tuple[str, ...] = ()


def run(config: Config, command: str, report: Report = lambda config, row: None) -> Outcome:
    """Train and test one configuration unless its record is finished.

    Raises:
        UserError: the combination is not defined, or the data or the disk fail.
    """
    if done := finished(config):
        return done
    strategy, used = _checked_parts(config)
    record = RunRecord(config.run_dir, provenance.code(config))
    with record.lease() as mine:
        if not mine:
            return Outcome("busy", config)
        if done := finished(config):  # while we waited
            return done
        teachers = {
            m: teacher(one, used_by=config, command=command, report=report)
            for m, one in config.teachers.items()
            if m in used
        }
        record.write_config(config.identity())
        trained = _train(config, strategy, used, record, teachers, command, report)
    return Outcome("done", config, trained)


def finished(config: Config) -> Outcome | None:
    """A run whose record is finished, which nothing asks to repeat; mirrored where that lacks."""
    if config.rerun or not (summary := read_summary(config.run_dir)):
        return None
    from miles_repro import tracking

    tracking.repeat(config, summary)
    stale = provenance.changed(summary.get("code"), config)
    return Outcome("skipped", config, summary, stale)


def check(config: Config) -> None:
    """Raises UserError where strategy, fusion and task do not go together, with the reason."""
    _checked_parts(config)


def _checked_parts(config: Config) -> tuple[Any, list[str]]:
    """The strategy and the modalities it uses, after every check that needs no data."""
    strategy = build(config.strategy)
    target(config.tracker)
    return strategy, check_combination(config, strategy, target(config.fusion))


def teacher(config: Config, used_by: Config, command: str, report: Report) -> Teacher:
    """The frozen model of a finished unimodal run: from its record, else trained now and kept."""
    from miles_repro.training import teacher_from

    while True:
        summary = read_summary(config.run_dir)
        if summary and (config.run_dir / WEIGHTS).exists():
            weights = RunRecord(config.run_dir).load_weights()
            return teacher_from(config, summary, weights, used_by.runtime.device)
        again = config.model_copy(update={"rerun": bool(summary)})  # the same bits, weights kept
        if run(again, command, report).status == "busy":
            time.sleep(TEACHER_POLL_S)


def _train(
    config: Config,
    strategy: Any,
    used: list[str],
    record: RunRecord,
    teachers: dict[str, Teacher],
    command: str,
    report: Report,
) -> dict[str, Any]:
    """Train and test a run to the summary of its record."""
    import torch

    from miles_repro.data.reader import PreparedData
    from miles_repro.training import Training, usable_device

    torch.set_num_threads(config.runtime.threads)
    device = usable_device(config.runtime.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    folder = config.runtime.data_dir / config.dataset.name
    data = PreparedData(folder, config.dataset.scheme, used, config.seed)
    part = cache(
        partial(
            data.part,
            device=device,
            resident_mb=config.runtime.resident_mb,
            fraction=config.budget.data_fraction,
        )
    )
    training = Training(
        config, strategy, used, record, teachers, command, data.stand_in, part, device
    )
    with training:
        saved = time.perf_counter()
        for row in training.fit.epochs():
            training.keep(row)
            if time.perf_counter() - saved >= SAVE_EVERY_S:
                training.save()
                saved = time.perf_counter()
            report(config, row)
        return training.finish()


sys.modules[__name__].__class__ = Verb  # miles_repro.run(...)
