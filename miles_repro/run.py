"""One run from configuration to record: skip if done, build, fit, select, test once, write."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from miles_repro import records
from miles_repro.config import Config, build, check_combination
from miles_repro.errors import UserError, one_line

if TYPE_CHECKING:
    import torch

    from miles_repro.data.prepared import PreparedData
    from miles_repro.loop import Fit

Report = Callable[[dict[str, Any], int], None]
"""Called after each epoch with its row and the number of epochs planned."""

SAVE_EVERY_S = 1.0
"""A state to resume from is saved at most this often: all that a kill costs beside its epoch."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``done`` (trained now), ``skipped`` (was done) or ``busy`` (elsewhere)."""

    status: str
    config: Config
    summary: dict[str, Any] | None = None


def run(config: Config, command: str, report: Report = lambda row, epochs: None) -> Outcome:
    """Train and test one configuration unless its record is finished.

    Raises:
        UserError: the combination is not defined, or the data or the disk fail.
    """
    if summary := records.read_summary(config.run_dir):
        return _skipped(config, summary)
    strategy, used = _checked(config)
    record = records.RunRecord(config.run_dir)
    with record.lease() as mine:
        if not mine:
            return Outcome("busy", config)
        if summary := records.read_summary(config.run_dir):  # finished while we waited
            return _skipped(config, summary)
        record.write_config(config.identity())
        return Outcome("done", config, _train(config, strategy, used, record, command, report))


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
    config: Config,
    strategy: Any,
    used: list[str],
    record: records.RunRecord,
    command: str,
    report: Report,
) -> dict[str, Any]:
    import torch

    from miles_repro import cost, tracking
    from miles_repro.data.prepared import PreparedData

    torch.set_num_threads(config.runtime.threads)
    device = _device(config.runtime.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    data = PreparedData(config.runtime.data_dir / config.dataset.name, config.dataset.scheme, used)
    part = partial(
        data.part,
        device=device,
        resident_mb=config.runtime.resident_mb,
        fraction=config.budget.data_fraction,
    )
    fit = _build(config, strategy, used, data, part, device)
    saved = record.load_state()
    history: list[dict[str, Any]] = []
    if saved:
        fit.load_state_dict(saved["fit"])
        history = saved["history"]
    record.rewrite_rows(history)
    meter = cost.Meter(saved["spent"] if saved else None)
    header = _header(config, command)
    tracker = tracking.start(
        config.tracker, {**header, "config": config.identity()}, config.run_dir, history
    )
    try:
        started = kept = time.perf_counter()
        for row in fit.epochs():
            now, spent = time.perf_counter(), meter.spent()
            row["time"] = {"epoch_s": now - started, "elapsed_s": spent["wall_s"]}
            started = now
            history.append(row)
            record.append(row)
            if now - kept >= SAVE_EVERY_S:
                record.save_state({"fit": fit.state_dict(), "history": history, "spent": spent})
                kept = time.perf_counter()
            tracker.log(row)
            report(row, config.epochs)
        summary = {
            "schema": 1,
            "status": "done",
            **header,
            "stand_in": data.stand_in,
            **_results(config, fit, history, part("test")),
            "config": config.identity(),
            "cost": cost.summary(meter, fit.train_seconds, fit.samples, device.type),
            "environment": cost.environment(device.type, config.runtime.threads),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        record.finish(summary)
    except BaseException as e:
        tracker.finish(None, f"{type(e).__name__}: {e}")
        raise
    tracker.finish(summary)
    return summary


def _build(
    config: Config,
    strategy: Any,
    used: list[str],
    data: PreparedData,
    part: Any,
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
        return Fit(model, task, strategy, part("train"), part("val"), recipe)
    except ValueError as e:
        raise UserError(f"strategy {config.strategy['name']}: {e}") from None


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
