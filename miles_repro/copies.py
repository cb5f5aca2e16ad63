"""Training copies of a model's heads beside the run: the service behind G-Blend."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from miles_repro.data.reader import Part
from miles_repro.fusions.concat import Concat
from miles_repro.model import Multimodal
from miles_repro.optim import build_optimizer
from miles_repro.seeding import derive
from miles_repro.strategies.base import Context
from miles_repro.strategies.vanilla import Vanilla
from miles_repro.tasks import Task

if TYPE_CHECKING:
    from miles_repro.loop import Recipe


class CopyTrainer:
    """Trains a copy of one head on training rows, with the run's own recipe and order rules.

    ``rows``: indices of the training split that the main training uses (all of them, unless a
    strategy holds some out).
    """

    def __init__(self, train: Part, task: Task, recipe: Recipe) -> None:
        self.train, self.task, self.recipe = train, task, recipe
        self.rows = torch.arange(len(train))

    def hold_out_of_training(self, share: float) -> None:
        """Keep the held-out rows of ``curve`` away from the main training as well."""
        self.rows = self._split(share)[0]

    def _split(self, share: float) -> tuple[Tensor, Tensor]:
        """Training rows and held-out rows, by the run's seed."""
        n = len(self.train)
        order = self.recipe.order(n, "holdout")
        held = max(1, round(share * n))
        return order[held:].sort().values, order[:held].sort().values

    def curve(
        self, model: Multimodal, head: str, epochs: int, share: float, criterion: str
    ) -> tuple[float, float, float, float]:
        """Loss of a copy of ``head`` (a modality or ``fused``) before and after ``epochs``.

        Returns (train, held-out) before and (train, held-out) after; the training loss is taken
        on as many rows as are held out. ``criterion`` metric uses 1 - metric as the loss.
        """
        from miles_repro.loop import train_epoch

        rows, held = self._split(share)
        subset = rows[: len(held)]
        recipe = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(recipe.seed, "copy", head))
            clone = self._copy(model, head)
            optimizer = build_optimizer(clone, recipe.optimizer, recipe.device)
            ctx = Context(clone, self.task, recipe.optimizer.lr, epochs, self, torch.Generator())
            if recipe.amp == torch.float16:
                ctx.scaler = torch.amp.GradScaler(recipe.device.type)
            ctx.optimizer = optimizer
            before = [self._loss(clone, r, criterion) for r in (subset, held)]
            strategy = Vanilla()
            for epoch in range(1, epochs + 1):
                ctx.epoch = epoch
                clone.train()
                order = rows[recipe.order(len(rows), "copy", epoch)]
                train_epoch(ctx, strategy, optimizer, self.train, order, recipe)
            after = [self._loss(clone, r, criterion) for r in (subset, held)]
        return before[0], before[1], after[0], after[1]

    def _copy(self, model: Multimodal, head: str) -> Multimodal:
        if head == "fused":
            encoders = dict(model.encoders.items())
            clone = Multimodal(copy.deepcopy(encoders), copy.deepcopy(model.fusion), {})
        else:
            linear = model.heads[head]
            assert isinstance(linear, nn.Linear)
            alone = Concat({head: linear.in_features}, linear.out_features)
            alone.linear = copy.deepcopy(linear)
            clone = Multimodal({head: copy.deepcopy(model.encoders[head])}, alone, {})
        return clone.requires_grad_(True)

    @torch.inference_mode()
    def _loss(self, model: Multimodal, rows: Tensor, criterion: str) -> float:
        model.eval()
        batches = self.train.batches(rows, self.train.within_memory(self.recipe.eval_batch_size))
        logits = torch.cat([model(x).fused for x, _ in batches])
        scores = self.task.score(logits, self.train.labels[rows.to(self.train.device)])
        return 1 - scores["metric"] if criterion == "metric" else scores["loss"]
