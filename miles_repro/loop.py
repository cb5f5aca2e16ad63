"""The training loop, the only one: every strategy runs through it.

    model, task, data from the config; every part seeded by name
    strategy.modules join the model; strategy.setup; the optimizer
    strategy.on_fit_start
    for epoch in 1..epochs:
        seed the epoch; strategy.on_epoch_start
        rate of each group = alpha x schedule(epoch) x strategy's factor
        frozen groups: eval mode, no gradient, no step
        for batch in strategy.order:                 a permutation of the training rows
            logits = strategy.step(batch)            forward, loss, backward, clip, step
        scores on train (running) and validation; keep the weights if validation improved
        strategy.on_epoch_end(train, val)            factors for the next epoch; may stop
        validate once more if the strategy edited the weights
        yield the epoch's row
    the caller tests the best weights, once

Every epoch starts from its own seed, so a resumed run needs no generator state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from miles_repro.context import Batch, Context, Logits, Segment, Teacher
from miles_repro.evaluate import score, utilization
from miles_repro.model import Multimodal
from miles_repro.recipe import Recipe
from miles_repro.seeding import derive
from miles_repro.strategy import Scores, Strategy
from miles_repro.tasks import Task

if TYPE_CHECKING:
    from miles_repro.data.reader import Part


def batches(ctx: Context, part: Part, segments: Sequence[Segment]) -> Iterator[Batch]:
    """The epoch's batches, augmented. A last batch of one sample joins the one before it.

    Batch normalisation cannot train on a single sample.
    """
    generator, size = ctx.recipe.augmenting(ctx.epoch), ctx.recipe.batch_size
    for segment in segments:
        n = len(segment.rows)
        whole = n - size - 1 if n > size > 1 and n % size == 1 else n
        start = 0
        for rows, step in ((segment.rows[:whole], size), (segment.rows[whole:], size + 1)):
            if not len(rows):
                continue
            for x, y in part.batches(rows, step):
                at = slice(start, start + len(y))
                keep = segment.keep and {m: k[at].to(y.device) for m, k in segment.keep.items()}
                yield Batch(
                    ctx.recipe.inputs(x, generator), y, segment.rows[at], keep, segment.name
                )
                start += len(y)


def train_epoch(
    ctx: Context, strategy: Strategy, part: Part, segments: Sequence[Segment]
) -> tuple[Logits, Tensor]:
    """One pass over the segments. Returns the running logits of every head, and their labels."""
    logits: list[Logits] = []
    labels: list[Tensor] = []
    for batch in batches(ctx, part, segments):
        logits.append(strategy.step(ctx, batch))
        labels.append(batch.y)
    if not logits:
        return {}, part.labels[:0]
    return {k: torch.cat([one[k] for one in logits]) for k in logits[0]}, torch.cat(labels)


class Fit:
    """One training from start, or from a saved state, to its last epoch.

    best_scores: validation scores of the best weights; diverged: a loss stopped being finite.
    """

    def __init__(
        self,
        model: Multimodal,
        task: Task,
        strategy: Strategy,
        train: Part,
        val: Part,
        recipe: Recipe,
        teachers: Mapping[str, Teacher] | None = None,
    ) -> None:
        self.model, self.task, self.strategy = model, task, strategy
        self.train, self.val, self.recipe = train, val, recipe
        self.ctx = Context(
            model, task, recipe, strategy, {"train": train, "val": val}, teachers or {}
        )
        self.ctx.rows = torch.arange(len(train))
        if recipe.amp == torch.float16:
            self.ctx.scaler = torch.amp.GradScaler(recipe.device.type)
        self._adopt()
        strategy.setup(self.ctx)
        self.optimizer = self.ctx.optimizer = recipe.optimize(model.parts())
        self.epoch = 0
        self.rates: dict[str, float] = {}
        self.best_epoch = 0
        self.best_metric = -math.inf
        self.best_scores: Scores = {}
        self.best: dict[str, Tensor] = {}
        self.diverged = False
        self.train_seconds = 0.0
        self.samples = 0

    def _adopt(self) -> None:
        torch.manual_seed(derive(self.recipe.seed, "modules"))
        own = self.strategy.modules(self.ctx)
        self.model.adopt({group: module.to(self.recipe.device) for group, module in own.items()})

    def epochs(self) -> Iterator[dict[str, Any]]:
        """Train the epochs that are left, yielding each one's record row (without ``time``)."""
        if self.epoch == 0:
            self.strategy.on_fit_start(self.ctx)
        while self.unfinished:
            segments = self._begin_epoch()
            started = time.perf_counter()
            logits, labels = train_epoch(self.ctx, self.strategy, self.train, segments)
            train_scores = score(self.task, logits, labels)
            self.train_seconds += time.perf_counter() - started
            self.samples += len(labels)
            yield self._end_epoch(train_scores)

    @property
    def unfinished(self) -> bool:
        return self.epoch < self.recipe.epochs and not (self.strategy.state.stop or self.diverged)

    def _begin_epoch(self) -> Sequence[Segment]:
        """Everything before an epoch's first batch. Returns its samples in their order."""
        self.epoch += 1
        self.ctx.epoch = self.epoch
        self.ctx.generator.manual_seed(derive(self.recipe.seed, "strategy", self.epoch))
        self.strategy.on_epoch_start(self.ctx)
        torch.manual_seed(derive(self.recipe.seed, "epoch", self.epoch))
        self.rates = self._set_rates()
        self._set_modes()
        return self.strategy.order(self.ctx, self.ctx.rows)

    def _end_epoch(self, train_scores: Scores) -> dict[str, Any]:
        """Everything after an epoch's last batch. Returns the epoch's row."""
        val_scores = self._validate()
        self.strategy.on_epoch_end(self.ctx, train_scores, val_scores)
        if self.strategy.state.edited:
            self.strategy.state.edited = False
            self._validate()
        losses = [s["loss"] for s in (*train_scores.values(), *val_scores.values())]
        self.diverged = not all(map(math.isfinite, losses))
        return {
            "epoch": self.epoch,
            "train": train_scores,
            "val": val_scores,
            "utilization": utilization(val_scores),
            "lr": self.rates,
            "strategy": self.strategy.log(),
        }

    def _validate(self) -> Scores:
        """Validation scores of the weights as they are, which are kept if they are the best."""
        seen = self.ctx.observe("val")
        scores = score(self.task, seen.logits, seen.labels)
        fused = scores["fused"]
        # NaN logits get a metric too, an argmax of nothing: it ranks below any number
        finite = math.isfinite(fused["loss"]) and math.isfinite(fused["metric"])
        value = fused["metric"] if finite else -math.inf
        if not self.best or value > self.best_metric:
            self.best_metric, self.best_epoch = value, self.epoch
            self.best_scores = scores
            self.best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        return scores

    def _set_rates(self) -> dict[str, float]:
        """Set every group's rate for this epoch; a frozen group's is reported as 0."""
        base = self.recipe.lr * self.recipe.schedule(self.epoch, self.recipe.epochs)
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
        """Put the best weights back, without modules that were added later."""
        kept = {key.split(".")[1] for key in self.best if key.startswith("own.")}
        for group in [g for g in self.model.own if g not in kept]:
            del self.model.own[group]
        self.model.load_state_dict(self.best)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: plain containers, safe to load with weights_only."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "groups": [g["name"] for g in self.optimizer.param_groups],
            "optimizer": self.optimizer.state_dict(),
            "strategy": self.strategy.state_dict(),
            "scaler": self.ctx.scaler.state_dict() if self.ctx.scaler else None,
            "best": {
                "epoch": self.best_epoch,
                "metric": self.best_metric,
                "scores": dict(self.best_scores),
                "model": self.best,
            },
            "diverged": self.diverged,
            "rows": self.ctx.rows,
            "train_seconds": self.train_seconds,
            "samples": self.samples,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state. Raises where it is that of another model."""
        self.epoch = self.ctx.epoch = int(state["epoch"])
        self.strategy.load_state_dict(state["strategy"])
        self.ctx.rows = state["rows"]
        self.model.own.clear()
        self._adopt()  # those added during training included
        self.model.load_state_dict(state["model"])
        parts = self.model.parts()
        self.optimizer = self.ctx.optimizer = self.recipe.optimize(
            {name: parts[name] for name in state["groups"]}
        )
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ctx.scaler:
            self.ctx.scaler.load_state_dict(state["scaler"])
        best = state["best"]
        self.best_epoch, self.best_metric, self.best = best["epoch"], best["metric"], best["model"]
        self.best_scores, self.diverged = best["scores"], state["diverged"]
        self.train_seconds, self.samples = state["train_seconds"], state["samples"]
