"""The training loop, the only one: every strategy runs through it.

    model, task, data from the config; every part seeded by name
    strategy.setup                                   before the optimizer exists
    strategy.on_fit_start
    for epoch in 1..epochs:
        seed the epoch; strategy.on_epoch_start
        rate of each group = base x schedule(epoch) x strategy's factor
        frozen groups: eval mode, no gradient, no step
        for x, y in a fixed permutation of the training rows:
            z = encoders(x); z = strategy.features(z); out = fusion(z)
            loss = strategy.loss(out, y); strategy.backward(loss); clip; optimizer.step
        scores on train (running) and validation; keep the weights if validation improved
        strategy.on_epoch_end(train, val)            factors for the next epoch; may stop
        yield the epoch's row
    the caller tests the best weights, once

Every epoch starts from its own seed, so a resumed run needs no generator state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from miles_repro.data.reader import Part
from miles_repro.evaluate import cat_logits, predict, score, utilization
from miles_repro.model import Multimodal, Output
from miles_repro.optim import build_optimizer, merged_groups, schedule
from miles_repro.seeding import derive
from miles_repro.strategies.base import Context, Strategy
from miles_repro.tasks import Task

if TYPE_CHECKING:
    from miles_repro.config import OptimizerConfig

Augment = Callable[[Tensor, torch.Generator], Tensor]


@dataclass
class Recipe:
    """How to take steps: everything about training that is not the strategy's business."""

    optimizer: OptimizerConfig
    batch_size: int
    eval_batch_size: int
    epochs: int
    seed: int
    device: torch.device
    augment: dict[str, Augment] = field(default_factory=dict)
    amp: torch.dtype | None = None
    channels_last: bool = False

    def order(self, n: int, *names: object) -> Tensor:
        """A permutation of range(n) that depends on the seed and ``names`` alone."""
        generator = torch.Generator().manual_seed(derive(self.seed, "order", *names))
        return torch.randperm(n, generator=generator)

    def augmenting(self, epoch: int) -> torch.Generator:
        """The generator of one epoch's augmentations."""
        return torch.Generator().manual_seed(derive(self.seed, "augment", epoch))

    def augmented(self, x: dict[str, Tensor], generator: torch.Generator) -> None:
        """Augment a training batch in place."""
        for m, augment in self.augment.items():
            if m in x:
                x[m] = augment(x[m], generator)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, self.amp) if self.amp else nullcontext()


def train_epoch(
    ctx: Context,
    strategy: Strategy,
    optimizer: torch.optim.Optimizer,
    part: Part,
    order: Tensor,
    recipe: Recipe,
) -> tuple[dict[str, Tensor], Tensor]:
    """One pass over ``order``. Returns the running logits of every head, and their labels."""
    model = ctx.model
    outputs: list[dict[str, Tensor]] = []
    parameters, clipped = list(model.parameters()), clippable(model)
    generator = recipe.augmenting(ctx.epoch)
    with merged_groups(optimizer):
        for x, y in part.batches(order, recipe.batch_size):
            recipe.augmented(x, generator)
            if recipe.channels_last:
                x = {
                    m: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v
                    for m, v in x.items()
                }
            for p in parameters:  # a sixth of the time of optimizer.zero_grad()
                p.grad = None
            with recipe.autocast():
                out = model.fuse(strategy.features(ctx, model.encode(x)))
                loss = total_loss(ctx, strategy, out, y)
                logits = {"fused": out.fused, **out.unimodal}  # before the step changes the heads
            strategy.backward(ctx, loss, out, y)
            step(ctx, optimizer, clipped, recipe)
            outputs.append({k: v.detach() for k, v in logits.items()})
    return cat_logits(outputs), part.labels[order.to(recipe.device)]


def total_loss(ctx: Context, strategy: Strategy, out: Output, y: Tensor) -> Tensor:
    """The strategy's loss, and that of probes, which moves nothing but the probes."""
    loss = strategy.loss(ctx, out, y)
    if ctx.model.probe:
        loss = loss + sum(ctx.task.loss(v, y) for v in out.unimodal.values())
    return loss


def clippable(model: Multimodal) -> list[nn.Parameter]:
    """The parameters whose gradients are clipped together: probes must not move the rest."""
    probes = set(model.heads.parameters() if model.probe else ())
    return [p for p in model.parameters() if p not in probes]


def step(
    ctx: Context,
    optimizer: torch.optim.Optimizer,
    clipped: list[nn.Parameter],
    recipe: Recipe,
) -> None:
    """Clip the gradients and take one optimizer step."""
    if recipe.optimizer.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(clipped, recipe.optimizer.clip_norm)
    if ctx.scaler is None:
        optimizer.step()
    else:
        ctx.scaler.step(optimizer)
        ctx.scaler.update()


class Fit:
    """One training from start, or from a saved state, to its last epoch."""

    def __init__(
        self,
        model: Multimodal,
        task: Task,
        strategy: Strategy,
        train: Part,
        val: Part,
        recipe: Recipe,
    ) -> None:
        from miles_repro.copies import CopyTrainer

        self.model, self.task, self.strategy = model, task, strategy
        self.train, self.val, self.recipe = train, val, recipe
        self.copies = CopyTrainer(train, task, recipe)
        self.ctx = Context(
            model, task, recipe.optimizer.lr, recipe.epochs, self.copies, torch.Generator()
        )
        if recipe.amp == torch.float16:
            self.ctx.scaler = torch.amp.GradScaler(recipe.device.type)
        strategy.setup(self.ctx)
        self.optimizer = self.ctx.optimizer = build_optimizer(
            model, recipe.optimizer, recipe.device
        )
        self.epoch = 0
        self.rates: dict[str, float] = {}
        self.best_epoch = 0
        self.best_metric = -math.inf
        self.best: dict[str, Tensor] = {}
        self.train_seconds = 0.0
        self.samples = 0

    def epochs(self) -> Iterator[dict[str, Any]]:
        """Train the epochs that are left, yielding each one's record row (without ``time``)."""
        self.start()
        while self.unfinished:
            order = self.begin_epoch()
            started = time.perf_counter()
            logits, labels = train_epoch(
                self.ctx, self.strategy, self.optimizer, self.train, order, self.recipe
            )
            yield self.end_epoch(logits, labels, time.perf_counter() - started)

    @property
    def unfinished(self) -> bool:
        return self.epoch < self.recipe.epochs and not self.strategy.state.stop

    def start(self) -> None:
        """Before the first epoch of this sitting."""
        if self.epoch == 0:
            self.strategy.on_fit_start(self.ctx)

    def begin_epoch(self) -> Tensor:
        """Everything before an epoch's first batch. Returns the training rows in their order."""
        self.epoch += 1
        self.ctx.epoch = self.epoch
        self.ctx.generator.manual_seed(derive(self.recipe.seed, "strategy", self.epoch))
        self.strategy.on_epoch_start(self.ctx)
        torch.manual_seed(derive(self.recipe.seed, "epoch", self.epoch))
        self.rates = self._set_rates()
        self._set_modes()
        rows = self.copies.rows
        return rows[self.recipe.order(len(rows), self.epoch)]

    def end_epoch(
        self, logits: dict[str, Tensor], labels: Tensor, seconds: float
    ) -> dict[str, Any]:
        """Everything after an epoch's last batch. Returns the epoch's row.

        ``logits``, ``labels``: of the training samples as they were met; ``seconds``: what
        training on them took.
        """
        train_scores = score(self.task, logits, labels)
        self.train_seconds += seconds
        self.samples += len(labels)
        predicted = predict(self.model, self.val, self.recipe.eval_batch_size)
        val_scores = score(self.task, predicted.logits, self.val.labels)
        if val_scores["fused"]["metric"] > self.best_metric:  # before a strategy edits weights
            self.best_metric, self.best_epoch = val_scores["fused"]["metric"], self.epoch
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.strategy.on_epoch_end(self.ctx, train_scores, val_scores)
        return {
            "epoch": self.epoch,
            "train": train_scores,
            "val": val_scores,
            "utilization": utilization(val_scores),
            "lr": self.rates,
            "strategy": self.strategy.log(),
        }

    def _set_rates(self) -> dict[str, float]:
        """Set every group's rate for this epoch; a frozen group's is reported as 0."""
        base = self.recipe.optimizer.lr * schedule(
            self.recipe.optimizer, self.epoch, self.recipe.epochs
        )
        state, rates = self.strategy.state, {}
        for group in self.optimizer.param_groups:
            name = group["name"]
            group["lr"] = base * state.lr_factors.get(name, 1.0)
            rates[name] = 0.0 if name in state.frozen else group["lr"]
        return rates

    def _set_modes(self) -> None:
        """A frozen part gets no gradient, so the optimizer skips it, and keeps its buffers."""
        self.model.train()
        for name, module in self.model.parts().items():
            frozen = name in self.strategy.state.frozen
            module.requires_grad_(not frozen)
            if frozen:
                module.eval()

    def load_best(self) -> None:
        self.model.load_state_dict(self.best)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: plain containers, safe to load with weights_only."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "strategy": self.strategy.state_dict(),
            "scaler": self.ctx.scaler.state_dict() if self.ctx.scaler else None,
            "best": {"epoch": self.best_epoch, "metric": self.best_metric, "model": self.best},
            "rows": self.copies.rows,
            "train_seconds": self.train_seconds,
            "samples": self.samples,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = self.ctx.epoch = int(state["epoch"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.strategy.load_state_dict(state["strategy"])
        if self.ctx.scaler:
            self.ctx.scaler.load_state_dict(state["scaler"])
        best = state["best"]
        self.best_epoch, self.best_metric, self.best = best["epoch"], best["metric"], best["model"]
        self.copies.rows = state["rows"]
        self.train_seconds, self.samples = state["train_seconds"], state["samples"]
