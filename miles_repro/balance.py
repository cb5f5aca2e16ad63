"""Every balancing strategy in anybody's training loop: ``from miles_repro import balance``.

    b = balance.OGMGE(optimizer, encoders={"image": f, "audio": g}, fusion=h,
                      dims={"image": 64, "audio": 64}, epochs=30)
    for epoch in range(1, 31):
        b.begin(epoch)
        for x, y in loader:
            z = b.features({m: encoder(x[m]) for m, encoder in b.encoders.items()}, y)
            loss = b.loss(z, y)
            b.backward(loss)
            b.step()
        if b.end(val={"fused": accuracy, "image": accuracy_of_image, "audio": accuracy_of_audio}):
            break

The names are those of the classes in :mod:`miles_repro.strategies`, the keywords their fields. A
strategy that takes several steps a batch has :meth:`Balancer.train_step` in place of the four
lines; one that chooses the epoch's samples gives them by :meth:`Balancer.order`. Needs torch alone.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from miles_repro import foreign, strategies
from miles_repro.context import Batch, Context, Logits, Segment, Teacher
from miles_repro.factors import RateFactors
from miles_repro.model import Multimodal, Output
from miles_repro.recipe import Recipe
from miles_repro.seeding import derive
from miles_repro.strategy import Strategy
from miles_repro.tasks import Multiclass, Score, Task


class Balancer:
    """One strategy around a loop's own modules and optimizer.

    Args:
        strategy: the strategy; ``balance.<Class>(optimizer, ..., **fields)`` makes it for you.
        optimizer: any torch optimizer in which every part (encoder, head, fusion) has parameter
            groups of its own. Its rates stay yours: factors act inside ``optimizer.step()`` only.
        encoders: modality -> module, input -> feature (B, d_m).
        fusion: a :class:`miles_repro.fusions.base.Fusion`; an ``nn.Linear`` on the concatenated
            features; or any module from {modality: feature} to logits (B, C).
        heads: modality -> unimodal head, for strategies whose loss trains some.
        epochs: length of the training (several rules are shares of it).
        task: what the labels mean; default: classes, as many as the fusion gives logits.
        dims: modality -> d_m, where an encoder has no ``dim`` and the fusion is an ``nn.Linear``.
        teachers: modality -> :class:`Teacher` or (encoder, head), for strategies that learn from
            frozen unimodal models.
        data: ``train`` and ``val`` tensors, for strategies that look at the whole of them.
        backward: what to call in place of ``loss.backward()``: ``accelerator.backward``.
        scaler, amp, clip_norm, seed: as in the suite: fp16 scaling, autocast type, gradient
            clipping, and the seed of the strategy's own random numbers.
        batch_size: of copies that a strategy trains beside the run (G-Blend).

    Raises:
        ValueError: parts without parameter groups of their own, or something the strategy needs.
    """

    def __init__(
        self,
        strategy: Strategy,
        optimizer: Optimizer,
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        heads: Mapping[str, nn.Module] | None = None,
        *,
        epochs: int,
        task: Task | None = None,
        dims: Mapping[str, int] | None = None,
        teachers: Mapping[str, Teacher | tuple[nn.Module, nn.Module]] | None = None,
        data: foreign.Data | None = None,
        backward: Callable[[Tensor], object] | None = None,
        scaler: torch.amp.GradScaler | None = None,
        amp: torch.dtype | None = None,
        clip_norm: float | None = None,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self.strategy, self.optimizer, name = strategy, optimizer, type(strategy).__name__
        device = optimizer.param_groups[0]["params"][0].device
        fused = foreign.as_fusion(fusion, encoders, dims)
        task = task or Multiclass(fused.num_classes)
        foreign.check(strategy, encoders, fused, task, heads=bool(heads), teachers=bool(teachers))
        recipe = Recipe(
            lr=float(optimizer.param_groups[0]["lr"]),
            optimizer=lambda groups: foreign.another(optimizer, groups),
            batch_size=batch_size,
            epochs=epochs,
            seed=seed,
            device=device,
            clip_norm=clip_norm,
            amp=amp,
        )
        trained = heads if heads and strategy.needs.heads == "trained" else {}
        model = Multimodal(encoders, fused, trained)
        self.ctx = Context(model, task, recipe, strategy, foreign.Parts(data, device, name))
        self.ctx.teachers = {
            m: t if isinstance(t, Teacher) else Teacher(*t) for m, t in (teachers or {}).items()
        }
        self.ctx.optimizer = foreign.Unmerged(optimizer)  # type: ignore[assignment]
        self.ctx.scaler, self.ctx.backprop = scaler, backward
        if data is not None:
            self.ctx.rows = torch.arange(len(data["train"][1]))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(derive(seed, "modules"))
            own = strategy.modules(self.ctx)
            model.adopt({group: module.to(device) for group, module in own.items()})
            strategy.setup(self.ctx)
        self._given = fused
        foreign.check_fusion(strategy, fused, model.fusion)
        made = [*own.values(), *([model.fusion] if model.fusion is not fused else [])]
        for module in made:  # what the strategy brings, a fusion of its own included
            optimizer.add_param_group({"params": list(module.parameters())})
        held = {p for group in optimizer.param_groups for p in group["params"]}
        parts = {  # but for those that never train
            part: module
            for part, module in model.parts().items()
            if any(p.requires_grad or p in held for p in module.parameters())
        }
        self._rates = RateFactors(optimizer, parts)
        if absent := self._rates.check():
            raise ValueError(f"the optimizer holds no parameters of {', '.join(sorted(absent))}")
        self._started = self._begun = self._ordered = self._pending = False
        self._freezing = foreign.Freezing()
        self._batch: Batch | None = None
        self.output: Output | None = None

    @property
    def encoders(self) -> Mapping[str, nn.Module]:
        """The encoders by modality."""
        return dict(self.ctx.model.encoders.items())

    @property
    def model(self) -> nn.Module:
        """Encoders, fusion, heads and the strategy's own modules in one module."""
        return self.ctx.model

    def begin(self, epoch: int) -> None:
        """Before an epoch's first batch; ``epoch`` counts from 1.

        Parts go to training mode, those that the strategy freezes to eval mode. What you have
        frozen yourself stays so, and a part of which nothing trains keeps its mode.
        """
        ctx, strategy = self.ctx, self.strategy
        if not self._started:
            strategy.on_fit_start(ctx)
            self._started = True
        ctx.epoch, self._ordered, self._begun = epoch, False, True
        ctx.generator.manual_seed(derive(ctx.recipe.seed, "strategy", epoch))
        strategy.on_epoch_start(ctx)
        self._rates.factors = {
            part: strategy.state.lr_factors.get(part, 1.0) for part in self._rates.factors
        }
        self._freezing.apply(ctx.model.parts(), strategy.state.frozen)

    def order(self, rows: int | Tensor) -> Sequence[Segment]:
        """The epoch's samples: segments of row numbers, masks; ``rows``: how many, or which."""
        self._ordered = True
        return self.strategy.order(self.ctx, torch.arange(rows) if isinstance(rows, int) else rows)

    def features(
        self, z: Mapping[str, Tensor], y: Tensor, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Features (B, d_m) as the strategy passes them on; ``rows``: the samples' numbers."""
        if type(self.strategy).step is not Strategy.step:
            name = type(self.strategy).__name__
            raise ValueError(f"{name} takes its own steps: call train_step(x, y) for each batch")
        self._must_have_begun()
        self._batch = Batch({}, y, torch.arange(len(y)) if rows is None else rows)
        return self.strategy.features(self.ctx, self._batch, dict(z))

    def loss(self, z: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """The scalar to minimise. ``self.output`` then holds the logits."""
        assert self._batch is not None, "call features first"
        self.output = self.ctx.model.fuse(dict(z))
        return self.strategy.loss(self.ctx, self._batch, self.output)

    def backward(self, loss: Tensor) -> None:
        """Gradients of ``loss``, modulated by the strategy, whose rule knows one batch's only."""
        assert self._batch is not None, "call features first"
        assert self.output is not None, "call loss first"
        if self._pending and type(self.strategy).backward is not Strategy.backward:
            name = type(self.strategy).__name__
            raise ValueError(
                f"{name} changes the gradients of one batch: call step() after every backward(), "
                "gradients of several batches cannot be accumulated"
            )
        self._pending = True
        self.strategy.backward(self.ctx, self._batch, self.output, loss)

    def step(self) -> None:
        """Clip, take the optimizer's step, clear the gradients."""
        self._pending = False
        self.ctx.update()

    def train_step(
        self,
        x: Mapping[str, Tensor],
        y: Tensor,
        rows: Tensor | None = None,
        keep: dict[str, Tensor] | None = None,
        segment: str = "",
    ) -> Logits:
        """Everything one batch does, for any strategy. Returns the logits before the step.

        rows, keep, segment: of the batch's samples, as :meth:`order` gives them.
        """
        self._must_have_begun()
        rows = torch.arange(len(y)) if rows is None else rows
        return self.strategy.step(self.ctx, Batch(dict(x), y, rows, keep, segment))

    def end(
        self,
        val: Mapping[str, float | Score],
        train: Mapping[str, float | Score] | None = None,
    ) -> bool:
        """After validation: ``fused`` and each modality -> metric (larger is better) or scores.

        Returns whether the strategy ends the training here.
        """
        if type(self.strategy).order is not Strategy.order and not self._ordered:
            name = type(self.strategy).__name__
            raise ValueError(f"{name} chooses an epoch's samples: go through order(rows)")
        absent = [name for name in ("fused", *self.encoders) if name not in val]
        if absent and type(self.strategy).on_epoch_end is not Strategy.on_epoch_end:
            raise ValueError(f"val has no metric of {', '.join(absent)}")
        self.strategy.on_epoch_end(self.ctx, foreign.scores(train or {}), foreign.scores(val))
        self.strategy.state.edited = False
        return self.strategy.state.stop

    @torch.no_grad()
    def logits(self, x: Mapping[str, Tensor]) -> Logits:
        """Predictions (B, C) by the strategy's rule: ``fused`` and each modality's own."""
        return self.ctx.logits(self.ctx.model(x))

    # --- resuming ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The strategy's state and modules; encoders, heads, your fusion, optimizer are yours."""
        own = foreign.brought(self.ctx.model, self._given).state_dict()
        return {"strategy": self.strategy.state_dict(), "own": own, "rows": self.ctx.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a :meth:`state_dict`. The optimizer may get groups: load its state later."""
        self.strategy.load_state_dict(state["strategy"])
        foreign.regrow(self.strategy, self.ctx)
        foreign.brought(self.ctx.model, self._given).load_state_dict(state["own"])
        self.ctx.rows, self._started, self._begun = state["rows"], True, False

    def _must_have_begun(self) -> None:
        if not self._begun:  # the strategy's decisions would have no effect
            raise ValueError("call begin(epoch) before an epoch's first batch")


def __getattr__(name: str) -> Callable[..., Balancer]:
    if not name.startswith("_"):
        for module in pkgutil.iter_modules(strategies.__path__):
            found = importlib.import_module(f"{strategies.__name__}.{module.name}")
            kind = getattr(found, name, None)
            if isinstance(kind, type) and issubclass(kind, Strategy) and kind is not Strategy:
                return _maker(kind)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _maker(kind: type[Strategy]) -> Callable[..., Balancer]:
    fields = set(getattr(kind, "__dataclass_fields__", {}))

    def make(
        optimizer: Optimizer,
        encoders: Mapping[str, nn.Module],
        fusion: nn.Module,
        heads: Mapping[str, nn.Module] | None = None,
        **given: Any,
    ) -> Balancer:
        own = {k: v for k, v in given.items() if k in fields}
        rest = {k: v for k, v in given.items() if k not in fields}
        return Balancer(kind(**own), optimizer, encoders, fusion, heads, **rest)

    make.__name__, make.__doc__ = kind.__name__, kind.__doc__
    return make
