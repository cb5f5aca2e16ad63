"""One run in progress: what is built from a configuration, and what it leaves in its record."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from miles_repro import cost, provenance, tracking
from miles_repro.config import Config, build, target
from miles_repro.context import Teacher
from miles_repro.data.reader import Part
from miles_repro.encoders.check import check_inputs
from miles_repro.errors import UserError
from miles_repro.evaluate import results
from miles_repro.fusions.concat import Concat
from miles_repro.loop import Fit
from miles_repro.metrics import gap
from miles_repro.model import build_model
from miles_repro.recipe import Recipe, fused
from miles_repro.records import SCHEMA, RunRecord, printable
from miles_repro.strategy import Strategy
from miles_repro.tasks import build_task


class Training:
    """One run in progress: its fit, its record, its mirror, its cost.

    A context: left with an error, it tells the mirror.
    """

    def __init__(
        self,
        config: Config,
        strategy: Strategy,
        used: list[str],
        record: RunRecord,
        teachers: Mapping[str, Teacher],
        command: str,
        stand_in: bool,
        part: Callable[[str], Part],
        device: torch.device,
    ) -> None:
        self.config, self.record, self.device = config, record, device
        self.part, self.stand_in = part, stand_in
        self.fit = build_fit(config, strategy, used, part, device, teachers)
        saved = record.load_state()
        self.history: list[dict[str, Any]] = []
        self.meter = cost.Meter()
        if saved:
            try:
                self.fit.load_state_dict(saved["fit"])
                self.history, self.meter = saved["history"], cost.Meter(saved["spent"])
            except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as e:
                record.discard_state(f"is not a state of this run ({type(e).__name__})")
                self.fit = build_fit(config, build(config.strategy), used, part, device, teachers)
        record.rewrite_rows(self.history)
        self.header = _header(config, command)
        self.tracker = tracking.begin(config, self.header, self.fit.task.metric, self.history)
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

    def finish(self) -> dict[str, Any]:
        """Test the best weights, once, and write the record. Returns its summary."""
        config, fit, device = self.config, self.fit, self.device.type
        fit.load_best()
        found = results(fit.ctx, fit.best_scores, self.part("test"), config.seed)
        predictions = found.pop("predictions")
        if "weights" in config.keep:
            self.record.save_weights(fit.best)
        if "predictions" in config.keep:
            self.record.save_predictions({k: v.cpu().numpy() for k, v in predictions.items()})
        strong, weak = config.dataset.strong, config.dataset.weak
        summary = {
            "schema": SCHEMA,
            "status": "diverged" if fit.diverged else "done",
            **self.header,
            "stand_in": self.stand_in,
            "data_fingerprint": config.data_fingerprint,
            "modalities": list(config.dataset.modalities),
            "strong": strong,
            "weak": weak,
            "metric": fit.task.metric,
            "epochs": config.epochs,
            "epochs_run": fit.epoch,
            "best_epoch": fit.best_epoch,
            "unimodal_source": _source(fit),
            **found,
            "gap": gap(found["test"], strong, weak),
            "keep": sorted(config.keep),
            "config": config.identity(),
            "code": provenance.code(config),
            "cost": cost.summary(self.meter, fit.train_seconds, fit.samples, device),
            "environment": cost.environment(device, config.runtime.threads),
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self.record.finish(summary)
        self.tracker.finish(summary)
        return summary


def _source(fit: Fit) -> str:
    """How a modality's own prediction is made: own rule, trained head, split or zero mask."""
    from miles_repro.fusions.base import Fusion

    if type(fit.strategy).unimodal is not Strategy.unimodal:
        return "own"
    if fit.model.heads:
        return "trained"
    return "zero_mask" if type(fit.model.fusion).unimodal is Fusion.unimodal else "split"


def build_fit(
    config: Config,
    strategy: Strategy,
    used: list[str],
    part: Callable[[str], Part],
    device: torch.device,
    teachers: Mapping[str, Teacher] | None = None,
) -> Fit:
    """The training of a configuration, from its start."""
    dataset = config.dataset
    model = build_model(
        {m: partial(build, dataset.modalities[m].encoder) for m in used},
        partial(build, config.fusion),
        dataset.num_classes,
        strategy.needs.heads,
        config.seed,
    ).to(device)
    if config.precision.channels_last:
        model.to(memory_format=torch.channels_last)
    if config.precision.compile:
        for encoder in model.encoders.values():
            encoder.compile()
    kind = target(config.optimizer.node)
    recipe = Recipe(
        lr=config.optimizer.lr,
        optimizer=lambda groups: build(
            config.optimizer.node, groups, lr=config.optimizer.lr, **fused(kind, device)
        ),
        schedule=build(config.optimizer.schedule),
        clip_norm=config.optimizer.clip_norm,
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
    task = build_task(dataset.task, dataset.num_classes, dataset.threshold, dataset.metric)
    check_inputs(dict(model.encoders.items()), part("train").batch(torch.arange(1))[0])
    try:
        return Fit(model, task, strategy, part("train"), part("val"), recipe, teachers)
    except ValueError as e:
        raise UserError(f"strategy {config.strategy['name']}: {e}") from None


def teacher_from(
    config: Config, summary: Mapping[str, Any], weights: Mapping[str, Tensor], device: str
) -> Teacher:
    """The frozen model of a finished unimodal run from its kept weights."""
    (m,) = build(config.strategy).restrict(list(config.dataset.modalities))
    model = build_model(
        {m: partial(build, config.dataset.modalities[m].encoder)},
        partial(build, config.fusion),
        config.dataset.num_classes,
        "none",
        config.seed,
    )
    model.load_state_dict(dict(weights))
    assert isinstance(model.fusion, Concat)  # what one modality is always kept under
    teacher = Teacher(model.encoders[m], model.fusion.linear, summary["val"]["fused"]["metric"])
    return teacher.to(usable_device(device))


def _header(config: Config, command: str) -> dict[str, Any]:
    return {
        "run_id": config.run_id,
        "dataset": config.dataset.name,
        "fusion": config.fusion["name"],
        "strategy": config.strategy["name"],
        "label": str(config.strategy.get("label") or config.strategy["name"]),
        "family": str(config.strategy.get("family") or "own"),
        "trial": config.trial,
        "seed": config.seed,
        "budget": config.budget.name,
        "pinned": config.pinned,
        "command": printable(command)[:2000],
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
