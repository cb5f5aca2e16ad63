"""Training a copy of one of a model's heads beside the run: what G-Blend measures."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from miles_repro.context import Context, Segment
from miles_repro.fusions.concat import Concat
from miles_repro.loop import train_epoch
from miles_repro.model import Multimodal
from miles_repro.strategies.vanilla import Vanilla


@dataclass(frozen=True)
class Curve:
    """Losses of one head before and after its copy's training."""

    train_start: float
    val_start: float
    train_end: float
    val_end: float


def held_out(ctx: Context, share: float) -> tuple[Tensor, Tensor]:
    """Training rows and held-out rows, by the run's seed; no group is in both.

    Groups are taken in random order until ``share`` of the rows is reached; where the data set
    knows none, rows are. At least one group stays on either side.
    """
    groups = ctx.parts["train"].groups
    n = len(ctx.parts["train"])
    ids = torch.arange(n) if groups is None else groups.cpu()
    names = ids.unique()
    if len(names) < 2:
        raise ValueError("overfit_on=groups: all training rows are of one group; use validation")
    names = names[ctx.recipe.order(len(names), "holdout")]
    sizes = (ids[None, :] == names[:-1, None]).sum(1) if groups is not None else torch.ones(n - 1)
    taken = int((sizes.cumsum(0) < share * n).sum()) + 1
    inside = torch.isin(ids, names[: min(taken, len(names) - 1)])
    return torch.nonzero(~inside).flatten(), torch.nonzero(inside).flatten()


def learning_curve(
    ctx: Context, head: str, epochs: int, train: Tensor, held: Tensor | None, criterion: str
) -> Curve:
    """Losses of a copy of ``head`` (a modality or ``fused``) before and after ``epochs``.

    train, held: training rows it trains on, and rows it is measured on (None: the validation
    split). ``criterion`` metric uses 1 - metric as the loss. Uses the run's recipe and order rules.
    """
    recipe = dataclasses.replace(ctx.recipe, epochs=epochs)
    strategy = Vanilla()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.seed_of("copy", head))
        clone = Context(_copy(ctx.model, head), ctx.task, recipe, strategy, ctx.parts)
        if recipe.amp == torch.float16:
            clone.scaler = torch.amp.GradScaler(recipe.device.type)
        clone.optimizer = recipe.optimize(clone.model.parts())
        for group in clone.optimizer.param_groups:  # at the rate that the run has by now
            group["lr"] *= recipe.schedule(ctx.epoch, ctx.epochs)

        def losses() -> tuple[float, float]:
            seen = clone.observe("val") if held is None else clone.observe("train", held)
            return tuple(  # type: ignore[return-value]
                1 - s["metric"] if criterion == "metric" else s["loss"]
                for s in (
                    ctx.task.score(o.logits["fused"], o.labels)
                    for o in (clone.observe("train", train), seen)
                )
            )

        before = losses()
        clone.model.train()
        for epoch in range(1, epochs + 1):
            clone.epoch = epoch
            segment = Segment(train[recipe.order(len(train), "copy", epoch)])
            train_epoch(clone, strategy, ctx.parts["train"], [segment])
        after = losses()
    return Curve(*before, *after)


def _copy(model: Multimodal, head: str) -> Multimodal:
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
