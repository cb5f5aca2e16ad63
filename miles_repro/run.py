"""One run from configuration to record: skip if done, build, fit, select, test once, write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Self

from miles_repro import records
from miles_repro.config import Config, build, check_combination
from miles_repro.errors import UserError, one_line

if TYPE_CHECKING:
    import torch

    from miles_repro.data.prepared import Part, PreparedData
    from miles_repro.loop import Fit

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
        mine: list[tuple[Config, records.RunRecord]] = []
        for config in configs:
            if summary := records.read_summary(config.run_dir):
                outcomes[config.run_id] = _skipped(config, summary)
                continue
            _checked(config)
            record = records.RunRecord(config.run_dir)
            if not leases.enter_context(record.lease()):
                outcomes[config.run_id] = Outcome("busy", config)
            elif summary := records.read_summary(config.run_dir):  # finished while we waited
                outcomes[config.run_id] = _skipped(config, summary)
            else:
                record.write_config(config.identity())
                mine.append((config, record))
        if mine:
            outcomes |= {o.config.run_id: o for o in _train(mine, command, report)}
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


def _train(
    runs: Sequence[tuple[Config, records.RunRecord]], command: str, report: Report
) -> list[Outcome]:
    import torch

    from miles_repro.data.prepared import PreparedData

    config = runs[0][0]  # a stack's others differ in seed and trial alone
    torch.set_num_threads(config.runtime.threads)
    device = _device(config.runtime.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    _, used = _checked(config)
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
            stack.enter_context(Training(*one, command, data, part, device, 1 / len(runs)))
            for one in runs
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


class Training:
    """One run in progress: its fit, its record, its mirror, its cost.

    A context: left with an error, it tells the mirror. ``share``: its part of the cost of this
    process, which trains 1 / share runs at once.
    """

    def __init__(
        self,
        config: Config,
        record: records.RunRecord,
        command: str,
        data: PreparedData,
        part: Callable[[str], Part],
        device: torch.device,
        share: float,
    ) -> None:
        from miles_repro import cost, tracking

        self.config, self.record, self.device = config, record, device
        self.data, self.part = data, part
        self.fit = _build(config, *_checked(config), part, device)
        saved = record.load_state()
        self.history: list[dict[str, Any]] = []
        if saved:
            self.fit.load_state_dict(saved["fit"])
            self.history = saved["history"]
        record.rewrite_rows(self.history)
        self.meter = cost.Meter(saved["spent"] if saved else None, share)
        self.header = _header(config, command)
        self.tracker = tracking.start(
            config.tracker,
            {**self.header, "config": config.identity()},
            config.run_dir,
            self.history,
        )
        self._started = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.tracker.finish(None, f"{type(error).__name__}: {error}")

    def keep(self, row: dict[str, Any]) -> None:
        """Record an epoch's row."""
        now = time.perf_counter()
        elapsed = self.meter.spent()["wall_s"]
        row["time"] = {"epoch_s": now - self._started, "elapsed_s": elapsed}
        self._started = now
        self.history.append(row)
        self.record.append(row)
        self.tracker.log(row)

    def save(self) -> None:
        """Save the state to resume from."""
        self.record.save_state(
            {"fit": self.fit.state_dict(), "history": self.history, "spent": self.meter.spent()}
        )

    def finish(self) -> Outcome:
        """Test the best weights, once, and write the record."""
        from miles_repro import cost

        config, fit, device = self.config, self.fit, self.device.type
        summary = {
            "schema": 1,
            "status": "done",
            **self.header,
            "stand_in": self.data.stand_in,
            **_results(config, fit, self.history, self.part("test")),
            "config": config.identity(),
            "cost": cost.summary(self.meter, fit.train_seconds, fit.samples, device),
            "environment": cost.environment(device, config.runtime.threads),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.record.finish(summary)
        self.tracker.finish(summary)
        return Outcome("done", config, summary)


def _build(
    config: Config,
    strategy: Any,
    used: list[str],
    part: Callable[[str], Part],
    device: torch.device,
) -> Fit:
    import torch

    from miles_repro.loop import Fit, Recipe
    from miles_repro.model import build_model
    from miles_repro.tasks import build_task

    dataset = config.dataset
    heads = strategy.needs.heads
    if heads == "none" and config.unimodal_source == "probe":
        heads = "probe"
    model = build_model(
        {m: partial(build, dataset.modalities[m].encoder) for m in used},
        partial(build, config.fusion),
        dataset.num_classes,
        heads,
        config.seed,
    ).to(device)
    if config.precision.channels_last:
        model.to(memory_format=torch.channels_last)
    if config.precision.compile:
        for encoder in model.encoders.values():
            encoder.compile()
    recipe = Recipe(
        optimizer=config.optimizer,
        batch_size=config.batch_size,
        eval_batch_size=config.runtime.eval_batch_size,
        epochs=config.epochs,
        seed=config.seed,
        device=device,
        augment={
            m: build(node) for m in used if (node := dataset.modalities[m].augment) is not None
        },
        amp={"bf16": torch.bfloat16, "fp16": torch.float16, None: None}[config.precision.amp],
        channels_last=config.precision.channels_last,
    )
    task = build_task(dataset.task, dataset.num_classes, dataset.threshold)
    try:
        fit = Fit(model, task, strategy, part("train"), part("val"), recipe)
        if config.stacked:
            from miles_repro import stacked

            stacked.check(fit)
    except ValueError as e:
        raise UserError(f"strategy {config.strategy['name']}: {e}") from None
    return fit


def _header(config: Config, command: str) -> dict[str, Any]:
    return {
        "run_id": config.run_id,
        "dataset": config.dataset.name,
        "fusion": config.fusion["name"],
        "strategy": config.strategy["name"],
        "trial": config.trial,
        "seed": config.seed,
        "budget": config.budget.name,
        "pinned": config.pinned,
        "command": command,
    }


def _results(config: Config, fit: Fit, history: list[dict[str, Any]], test: Any) -> dict[str, Any]:
    """Everything measured on the weights of the best epoch; the test split's only use."""
    from miles_repro.evaluate import predict, robustness, score, utilization
    from miles_repro.metrics import gap

    fit.load_best()
    size = config.runtime.eval_batch_size
    val, predicted = predict(fit.model, fit.val, size), predict(fit.model, test, size)
    val_scores = history[fit.best_epoch - 1]["val"]
    test_scores = score(fit.task, predicted.logits, test.labels)
    return {
        "data_fingerprint": config.data_fingerprint,
        "modalities": list(config.dataset.modalities),
        "strong": config.dataset.strong,
        "weak": config.dataset.weak,
        "metric": fit.task.metric,
        "epochs": config.epochs,
        "epochs_run": fit.epoch,
        "best_epoch": fit.best_epoch,
        "val": val_scores,
        "test": test_scores,
        "gap": gap(test_scores, config.dataset.strong, config.dataset.weak),
        "utilization": {"val": utilization(val_scores), "test": utilization(test_scores)},
        **robustness(fit.model, fit.task, val, test, predicted, config.seed),
    }


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        reason = str(e).splitlines()[0]
        raise UserError(f"runtime.device={name} cannot be used here: {reason}") from None
    return device
