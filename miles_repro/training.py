"""One run in progress: what is built from a configuration, and what it leaves in its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

import torch

from miles_repro import cost, tracking
from miles_repro.config import Config, build
from miles_repro.data.prepared import Part
from miles_repro.errors import UserError
from miles_repro.evaluate import predict, robustness, score, utilization
from miles_repro.loop import Fit, Recipe
from miles_repro.metrics import gap
from miles_repro.model import build_model
from miles_repro.records import SCHEMA, RunRecord
from miles_repro.strategies.base import Strategy
from miles_repro.tasks import build_task


class Training:
    """One run in progress: its fit, its record, its mirror, its cost.

    A context: left with an error, it tells the mirror. ``share``: its part of the cost of this
    process, which trains 1 / share runs at once.
    """

    def __init__(
        self,
        config: Config,
        strategy: Strategy,
        used: list[str],
        record: RunRecord,
        command: str,
        stand_in: bool,
        part: Callable[[str], Part],
        device: torch.device,
        share: float,
    ) -> None:
        self.config, self.record, self.device = config, record, device
        self.part, self.stand_in = part, stand_in
        self.fit = build_fit(config, strategy, used, part, device)
        saved = record.load_state()
        self.history: list[dict[str, Any]] = []
        if saved:
            self.fit.load_state_dict(saved["fit"])
            self.history = saved["history"]
        record.rewrite_rows(self.history)
        self.meter = cost.Meter(saved["spent"] if saved else None, share)
        self.header = _header(config, command)
        self.over = False
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
        if error is not None and not self.over:
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

    def finish(self) -> dict[str, Any]:
        """Test the best weights, once, and write the record. Returns its summary."""
        config, fit, device = self.config, self.fit, self.device.type
        summary = {
            "schema": SCHEMA,
            "status": "done",
            **self.header,
            "stand_in": self.stand_in,
            **_results(config, fit, self.history, self.part("test")),
            "config": config.identity(),
            "cost": cost.summary(self.meter, fit.train_seconds, fit.samples, device),
            "environment": cost.environment(device, config.runtime.threads),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.record.finish(summary)
        self.over = True  # also where another run of the stack fails after this
        self.tracker.finish(summary)
        return summary


def build_fit(
    config: Config,
    strategy: Strategy,
    used: list[str],
    part: Callable[[str], Part],
    device: torch.device,
) -> Fit:
    """The training of a configuration, from its start."""
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


def usable_device(name: str) -> torch.device:
    """The device ``runtime.device`` asks for. Raises UserError where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as e:
        reason = str(e).splitlines()[0]
        raise UserError(f"runtime.device={name} cannot be used here: {reason}") from None
    return device
