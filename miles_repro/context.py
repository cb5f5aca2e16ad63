"""What a balancing strategy sees of a run, and the pieces that its steps are built from.

There is no way from here to a test sample: the two parts it reads hold their own rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from miles_repro.model import Multimodal, Output
from miles_repro.recipe import Recipe, merged
from miles_repro.seeding import derive

if TYPE_CHECKING:
    from miles_repro.data.reader import Part
    from miles_repro.tasks import Task

Logits = dict[str, Tensor]
"""``fused`` and each modality -> logits (B, C)."""


@dataclass
class Batch:
    """One training batch.

    x: modality -> input (B, ...); y: labels; rows: row (B,) of each sample in the training split;
    keep: modality -> (B,) bool, False where a sample's feature is set to zero (None: all kept);
    segment: name of the segment of the epoch's order it comes from.
    """

    x: dict[str, Tensor]
    y: Tensor
    rows: Tensor
    keep: dict[str, Tensor] | None = None
    segment: str = ""


@dataclass
class Segment:
    """A stretch of an epoch: rows (n,) of the training split in order, repeats allowed.

    No batch crosses its end. keep: as in :class:`Batch`, of n entries.
    """

    rows: Tensor
    keep: dict[str, Tensor] | None = None
    name: str = ""


@dataclass
class Observation:
    """What the model says of a set of rows, in eval mode: features (n, d_m), logits, labels."""

    features: dict[str, Tensor]
    logits: Logits
    labels: Tensor

    def masked(self, ctx: Context, kept: Iterable[str]) -> Tensor:
        """Fused prediction (n, C) with the features of all modalities but ``kept`` at zero."""
        kept = set(kept)
        z = {m: f if m in kept else torch.zeros_like(f) for m, f in self.features.items()}
        with torch.no_grad(), evaluating(ctx.model):
            return ctx.hooks.predict(ctx, ctx.model.fuse(z))


class Teacher(nn.Module):
    """A frozen unimodal model: encoder z_m = f_m(x_m) and linear head; always in eval mode.

    metric: its headline metric on the validation split, where known.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, metric: float | None = None) -> None:
        super().__init__()
        self.encoder, self.head, self.metric = encoder, head, metric
        super().train(False).requires_grad_(False)

    def train(self, mode: bool = True) -> Teacher:
        """A teacher stays as it is."""
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Feature (B, d) and logits (B, C) of the inputs, without gradient."""
        with torch.no_grad():
            z = self.encoder(x)
            return z, self.head(z)


class Hooks(Protocol):
    """The part of a strategy that a forward pass goes through."""

    def features(self, ctx: Context, batch: Batch, z: dict[str, Tensor]) -> dict[str, Tensor]: ...
    def predict(self, ctx: Context, out: Output) -> Tensor: ...
    def unimodal(self, ctx: Context, out: Output) -> dict[str, Tensor]: ...


@dataclass
class Context:
    """A run as its strategy sees it.

    rows: training rows that the main training uses (a strategy may hold some out);
    generator: the strategy's own random numbers, seeded anew each epoch.
    """

    model: Multimodal
    task: Task
    recipe: Recipe
    hooks: Hooks
    parts: Mapping[str, Part] = field(default_factory=dict)
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    epoch: int = 0
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    generator: torch.Generator = field(default_factory=torch.Generator)
    scaler: torch.amp.GradScaler | None = None
    optimizer: torch.optim.Optimizer | None = None
    backprop: Callable[[Tensor], object] | None = None  # in a foreign loop: its own backward

    @property
    def modalities(self) -> list[str]:
        return self.model.modalities

    @property
    def lr(self) -> float:
        """The global learning rate alpha."""
        return self.recipe.lr

    @property
    def epochs(self) -> int:
        return self.recipe.epochs

    # --- the pieces of a step ---------------------------------------------------------------

    def autocast(self) -> AbstractContextManager[object]:
        """The run's precision, for forward passes and losses."""
        amp = self.recipe.amp
        return torch.autocast(self.recipe.device.type, amp) if amp else nullcontext()

    def forward(self, batch: Batch) -> Output:
        """Encoders, the batch's masks, the strategy's ``features``, fusion."""
        with self.autocast():
            z = self.model.encode(batch.x)
            if batch.keep is not None:
                z = {m: f * batch.keep[m][:, None] for m, f in z.items()}
            return self.model.fuse(self.hooks.features(self, batch, z))

    def logits(self, out: Output) -> Logits:
        """What is scored: the strategy's fused and unimodal predictions, without gradient."""
        heads = {"fused": self.hooks.predict(self, out), **self.hooks.unimodal(self, out)}
        return {k: v.detach() for k, v in heads.items()}

    def parameters(self, groups: Iterable[str] | None = None) -> list[nn.Parameter]:
        """Trainable parameters of the named groups; of all by default."""
        parts = self.model.parts()
        names = parts if groups is None else groups
        return [p for g in names for p in parts[g].parameters() if p.requires_grad]

    def grad(
        self, loss: Tensor, groups: Iterable[str] | None = None, retain: bool = True
    ) -> dict[nn.Parameter, Tensor]:
        """True gradients of ``loss``, of any scale, by parameter; what it does not reach is absent.

        ``p.grad`` stays as it is; see :meth:`backward`. ``retain``: keep the graph for another.
        """
        parameters = self.parameters(groups)
        scale = self.scaler.get_scale() if self.scaler else 1.0
        scaled = loss if scale == 1 else self.scaler.scale(loss)  # type: ignore[union-attr]
        found = torch.autograd.grad(scaled, parameters, retain_graph=retain, allow_unused=True)
        return {
            p: g if scale == 1 else g.div_(scale)
            for p, g in zip(parameters, found, strict=True)
            if g is not None
        }

    def backward(self, loss: Tensor, groups: Iterable[str] | None = None) -> None:
        """Add the gradients of ``loss`` to ``p.grad``, which always holds true ones.

        ``groups``: only to the parameters of these; the graph is then kept.
        """
        if groups is None and self.scaler is None:
            (self.backprop or Tensor.backward)(loss)
            return
        for p, g in self.grad(loss, groups, retain=groups is not None).items():
            p.grad = g if p.grad is None else p.grad + g

    def update(self, groups: Iterable[str] | None = None) -> None:
        """Clip the gradients, take one optimizer step, clear them.

        ``groups``: only these take a step; the others' gradients are dropped, so that neither
        momentum nor weight decay moves them.
        """
        assert self.optimizer is not None
        every = [p for group in self.optimizer.param_groups for p in group["params"]]
        if groups is not None:
            stepping = {id(p) for p in self.parameters(groups)}
            for p in every:
                if id(p) not in stepping:
                    p.grad = None
        if all(p.grad is None for p in every):
            return  # nothing to step by, which a scaler would take for an error
        if self.scaler is not None:  # its own unscaling looks for overflow, and undoes this
            scale = self.scaler.get_scale()
            for p in every:
                if p.grad is not None:
                    p.grad.mul_(scale)
            self.scaler.unscale_(self.optimizer)
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(every, self.recipe.clip_norm)
        with merged(self.optimizer):
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
        if self.scaler is not None:
            self.scaler.update()
        for p in every:  # a sixth of the time of optimizer.zero_grad()
            p.grad = None

    # --- services ---------------------------------------------------------------------------

    def shuffled(self, rows: Tensor, *names: object) -> Tensor:
        """``rows`` in this epoch's order, which depends on the seed and ``names`` alone."""
        return rows[self.recipe.order(len(rows), *names, self.epoch)]

    def observe(self, split: str, rows: Tensor | None = None) -> Observation:
        """What the model says of ``train`` or ``val`` (all of it, or ``rows`` in their order)."""
        return self.look(self.parts[split], rows)

    @torch.no_grad()  # not inference_mode: what is seen may enter a loss
    def look(self, part: Part, rows: Tensor | None = None) -> Observation:
        """Run rows of a part through the model in eval mode, which is then put back as it was."""
        rows = torch.arange(len(part)) if rows is None else rows.cpu()
        size = part.within_memory(self.recipe.eval_batch_size)
        logits: list[Logits] = []
        features: list[dict[str, Tensor]] = []
        with evaluating(self.model):
            for x, _ in part.batches(rows, size):
                out = self.model(x)
                logits.append(self.logits(out))
                features.append(out.features)
        return Observation(_cat(features), _cat(logits), part.labels[rows.to(part.labels.device)])

    def add(self, module: nn.Module, group: str) -> None:
        """Give the model a module of the strategy's own, trained from now on as ``group``.

        A resumed run builds it again through ``Strategy.modules``, which must then know of it.
        """
        assert self.optimizer is not None
        self.model.adopt({group: module.to(self.recipe.device)})
        first = self.optimizer.param_groups[0]
        settings = {k: v for k, v in first.items() if k not in ("params", "name")}
        self.optimizer.add_param_group(
            {**settings, "params": list(module.parameters()), "name": group}
        )

    @torch.no_grad()
    def reset(
        self, part: str, toward: Mapping[str, Tensor], share: float, optimizer_state: bool = True
    ) -> None:
        """theta <- (1 - share) theta + share toward, for a group's parameters.

        toward: parameter name -> value; ``optimizer_state``: forget the group's moments as well.
        """
        assert self.optimizer is not None
        for name, p in self.model.parts()[part].named_parameters():
            p.lerp_(toward[name].to(p), share)
            if optimizer_state:
                self.optimizer.state.pop(p, None)

    def teacher(self, modality: str) -> Teacher:
        """The frozen unimodal model of this run's seed."""
        if modality not in self.teachers:
            raise ValueError(f"there is no teacher for {modality}")
        return self.teachers[modality]

    def seed_of(self, *names: object) -> int:
        """A seed for the thing called ``names`` in this run."""
        return derive(self.recipe.seed, *names)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within, the model is in eval mode; afterwards every module is as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _cat(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {k: torch.cat([one[k] for one in found]) for k in found[0]} if found else {}
