"""Several runs of one cell trained at once: their passes as one, by torch.func.

Runs that differ in seed or trial have the same network, so their parameters are stacked and one
vectorised forward and backward pass serves all of them: on a GPU, where a small network leaves most
of the chip idle, the passes of several cost little more than that of one; on a CPU it loses. Every
run keeps its own batches, optimizer, rates, strategy and record, and takes its own steps. Its
numbers are those of a run by itself up to rounding, so a stacked run has a run id of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from miles_repro.evaluate import cat_logits
from miles_repro.loop import Fit, clippable, step, total_loss
from miles_repro.model import Multimodal, Output
from miles_repro.optim import merged_groups
from miles_repro.strategies.base import Strategy

RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
Logits = dict[str, Tensor]


def check(fit: Fit) -> None:
    """Raises ValueError, with the reason, where this run cannot be one of a stack."""
    for hook in ("features", "backward"):
        if getattr(type(fit.strategy), hook) is not getattr(Strategy, hook):
            raise ValueError(
                "cannot be stacked: it works inside the pass that a stack shares; "
                "give one seed or trial at a time"
            )
    for module in fit.model.modules():
        if isinstance(module, nn.RNNBase) or (isinstance(module, RANDOM) and module.p > 0):
            raise ValueError(
                f"cannot be stacked: {type(module).__name__} in the model is not the same "
                "computation in a stack; give one seed or trial at a time"
            )


def epochs(fits: Sequence[Fit]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Train all that is left of every fit, yielding after each epoch (index of a fit, its row)."""
    for fit in fits:
        fit.start()
    while left := [i for i, fit in enumerate(fits) if fit.unfinished]:
        orders = {i: fits[i].begin_epoch() for i in left}
        rows: list[tuple[int, dict[str, Any]]] = []
        by_frozen: dict[frozenset[str], list[int]] = {}
        for i in left:  # a frozen part is in another mode
            by_frozen.setdefault(frozenset(fits[i].strategy.state.frozen), []).append(i)
        for group in by_frozen.values():
            started = time.perf_counter()
            found = train_epoch([fits[i] for i in group], [orders[i] for i in group])
            each = (time.perf_counter() - started) / len(group)
            for i, (logits, labels) in zip(group, found, strict=True):
                rows.append((i, fits[i].end_epoch(logits, labels, each)))
        yield rows


def train_epoch(fits: Sequence[Fit], orders: Sequence[Tensor]) -> list[tuple[Logits, Tensor]]:
    """As :func:`miles_repro.loop.train_epoch`, for all of them; none has other parts frozen."""
    recipe = fits[0].recipe
    outputs: list[list[Logits]] = [[] for _ in fits]
    generators = [f.recipe.augmenting(f.epoch) for f in fits]
    clipped = [clippable(f.model) for f in fits]
    with ExitStack() as held:
        shared = held.enter_context(joined([f.model for f in fits]))
        for f in fits:
            held.enter_context(merged_groups(f.optimizer))
        feeds = [f.train.batches(o, recipe.batch_size) for f, o in zip(fits, orders, strict=True)]
        for batches in zip(*feeds, strict=True):
            for f, generator, (x, _) in zip(fits, generators, batches, strict=True):
                f.recipe.augmented(x, generator)
            together = {m: torch.stack([x[m] for x, _ in batches]) for m in batches[0][0]}
            with recipe.autocast():
                outs = shared.forward(together)
                losses = [
                    total_loss(f.ctx, f.strategy, out, y)
                    for f, out, (_, y) in zip(fits, outs, batches, strict=True)
                ]
            scaled = [
                f.ctx.scaler.scale(loss) if f.ctx.scaler else loss
                for f, loss in zip(fits, losses, strict=True)
            ]
            shared.backward(torch.stack(scaled).sum())
            for f, out, parameters, kept in zip(fits, outs, clipped, outputs, strict=True):
                if f.ctx.scaler:
                    f.ctx.scaler.unscale_(f.optimizer)
                step(f.ctx, f.optimizer, parameters, f.recipe)
                kept.append(
                    {k: v.detach() for k, v in {"fused": out.fused, **out.unimodal}.items()}
                )
    return [
        (cat_logits(kept), f.train.labels[order.to(recipe.device)])
        for f, kept, order in zip(fits, outputs, orders, strict=True)
    ]


class Pass(nn.Module):
    """A model whose output is plain tensors, as vmap needs it."""

    def __init__(self, model: Multimodal) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Mapping[str, Tensor]) -> tuple[Logits, Tensor, Logits]:
        out = self.model(x)
        return out.features, out.fused, out.unimodal


class Joined:
    """Models whose parameters and buffers are slices of one stacked tensor each."""

    def __init__(self, models: Sequence[Multimodal]) -> None:
        passes = [Pass(m) for m in models]
        self.template = passes[0]
        self.own = [dict(p.named_parameters()) for p in passes]
        own_buffers = [dict(p.named_buffers()) for p in passes]
        self.parameters = {
            name: torch.stack([p[name].detach() for p in self.own]).requires_grad_(p.requires_grad)
            for name, p in self.own[0].items()
        }
        self.buffers = {k: torch.stack([b[k] for b in own_buffers]) for k in own_buffers[0]}
        self._slices: list[tuple[Tensor, Tensor]] = []
        for own, stacks in ((self.own, self.parameters), (own_buffers, self.buffers)):
            for name, stacked in stacks.items():
                mine = [tensors[name] for tensors in own]
                self._slices += zip(mine, stacked.detach().unbind(), strict=True)
        for tensor, piece in self._slices:
            tensor.data = piece

    def part(self) -> None:
        """Give every model tensors of its own again: a slice is saved with all of its stack."""
        for tensor, _ in self._slices:
            tensor.data = tensor.data.clone()

    def forward(self, x: Mapping[str, Tensor]) -> list[Output]:
        """Inputs (S, B, ...) by modality -> the output of each of the S models."""

        def one(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Mapping[str, Tensor]
        ) -> tuple[Logits, Tensor, Logits]:
            return functional_call(self.template, (parameters, buffers), (x,))

        features, fused, unimodal = vmap(one)(self.parameters, self.buffers, dict(x))
        z, y = ({m: v.unbind() for m, v in found.items()} for found in (features, unimodal))
        outs = []
        for i, logits in enumerate(fused.unbind()):
            out = Output({m: v[i] for m, v in z.items()}, logits, lambda _: {})
            out.unimodal = {m: v[i] for m, v in y.items()}
            outs.append(out)
        return outs

    def backward(self, loss: Tensor) -> None:
        """Gradients of every model's own parameters; ``loss``: the sum over the models."""
        for stacked in self.parameters.values():
            stacked.grad = None
        loss.backward()
        for name, stacked in self.parameters.items():
            for i, own in enumerate(self.own):
                own[name].grad = None if stacked.grad is None else stacked.grad[i]


@contextmanager
def joined(models: Sequence[Multimodal]) -> Iterator[Joined]:
    """Within, the models' parameters and buffers are slices of common ones."""
    shared = Joined(models)
    try:
        yield shared
    finally:
        shared.part()
