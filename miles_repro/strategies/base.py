"""What a balancing strategy may do, and when: the hooks the training loop calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated
from torch import Tensor
from typing_extensions import dataclass_transform

from miles_repro.model import Heads, Multimodal, Output
from miles_repro.tasks import Score, Task

if TYPE_CHECKING:
    from miles_repro.copies import CopyTrainer

Scores = Mapping[str, Score]
"""``fused`` and each modality -> its loss and metrics on one split."""


@dataclass_transform(kw_only_default=True)
def hyperparameters(cls: type) -> type:
    """Make a strategy a dataclass whose fields are type- and range-checked when it is built."""
    return validated(kw_only=True, config=ConfigDict(extra="forbid"))(cls)


@dataclass(frozen=True)
class Needs:
    """What a strategy requires; checked before a run starts, with the reason in the error.

    heads: ``trained`` where the strategy's loss trains unimodal heads (Eq. 3), else ``none``.
    fusions, tasks: names it supports; None = any. min/max_modalities: how many it is defined for.
    """

    heads: Heads = "none"
    fusions: frozenset[str] | None = None
    tasks: frozenset[str] | None = None
    min_modalities: int = 2
    max_modalities: int | None = None


@dataclass
class Context:
    """What a strategy sees of the run. There is no way from here to a test sample."""

    model: Multimodal
    task: Task
    lr: float
    epochs: int
    copies: CopyTrainer
    generator: torch.Generator
    epoch: int = 0
    scaler: torch.amp.GradScaler | None = None
    optimizer: torch.optim.Optimizer | None = None

    @property
    def modalities(self) -> list[str]:
        return self.model.modalities


@dataclass
class State:
    """What the loop reads back after every hook.

    lr_factors: group name -> factor on base rate x schedule (absent = 1);
    frozen: names of groups that take no step and keep their buffers; stop: end the run.
    """

    lr_factors: dict[str, float] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    stop: bool = False


class Strategy:
    """Base strategy: the multimodal loss alone (vanilla). Override what differs.

    Group names are ``encoder.<m>``, ``head.<m>`` and ``fusion``. ``persistent`` names the
    attributes, beside the base ones, that a resumed run must find again: plain numbers, strings,
    tensors, and lists or dicts of them.
    """

    needs: ClassVar[Needs] = Needs()
    persistent: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hooks = {name for name in vars(Strategy) if name.startswith("on_")}
        for name in vars(cls):
            if name.startswith("on_") and name not in hooks:
                raise TypeError(
                    f"{cls.__name__}.{name} is not a hook and would never be called; "
                    f"hooks are {', '.join(sorted(hooks))}"
                )

    def __post_init__(self) -> None:
        self.state = State()

    def restrict(self, modalities: list[str]) -> list[str]:
        """The modalities the model is built for; all of them unless a strategy trains fewer."""
        return modalities

    def setup(self, ctx: Context) -> None:
        """Once, before the optimizer exists."""

    def on_fit_start(self, ctx: Context) -> None:
        """Once, before the first epoch; may train copies through ``ctx.copies``."""

    def on_epoch_start(self, ctx: Context) -> None:
        """Before each epoch's first batch."""

    def features(self, ctx: Context, z: dict[str, Tensor]) -> dict[str, Tensor]:
        """Between encoders and fusion, on training batches only."""
        return z

    def loss(self, ctx: Context, out: Output, y: Tensor) -> Tensor:
        """The scalar to minimise on one batch."""
        return ctx.task.loss(out.fused, y)

    def backward(self, ctx: Context, loss: Tensor, out: Output, y: Tensor) -> None:
        """Gradients of ``loss``; modulate them after ``super().backward(...)``."""
        if ctx.scaler is None:
            loss.backward()
        else:  # fp16: modulation must see true gradients, so unscale at once
            ctx.scaler.scale(loss).backward()
            assert ctx.optimizer is not None
            ctx.scaler.unscale_(ctx.optimizer)

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        """After validation. ``train`` holds the running scores of the epoch's own batches."""

    def log(self) -> dict[str, float]:
        """Numbers worth a curve, read after ``on_epoch_end``."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.persistent}
        s = self.state
        return {
            "lr_factors": dict(s.lr_factors),
            "frozen": sorted(s.frozen),
            "stop": s.stop,
            **own,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.state = State(dict(state["lr_factors"]), set(state["frozen"]), bool(state["stop"]))
        for name in self.persistent:
            setattr(self, name, state[name])


def weighted_loss(task: Task, out: Output, y: Tensor, weights: Mapping[str, float]) -> Tensor:
    """Sum of w_k L_k over ``fused`` and modalities; a term of weight zero is not computed."""
    total: Tensor | None = None
    for k, w in weights.items():
        if w == 0:
            continue
        term = task.loss(out.fused if k == "fused" else out.unimodal[k], y)
        term = term if w == 1 else w * term
        total = term if total is None else total + term
    assert total is not None
    return total


def joint_weights(modalities: list[str]) -> dict[str, float]:
    """Weights of MILES Eq. 3: L = L_AB + L_A + L_B."""
    return {"fused": 1.0, **dict.fromkeys(modalities, 1.0)}
