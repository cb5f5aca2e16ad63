"""What a balancing strategy may do, and when: the hooks the training loop calls.

A strategy is a class of hyper-parameters (its annotated fields, made a keyword-only dataclass and
checked when it is built) that overrides the hooks in which it differs from vanilla training.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, dataclass_transform

from torch import Tensor, nn

from miles_repro.context import Batch, Context, Logits, Segment
from miles_repro.hyper import check, hyper
from miles_repro.model import Heads, Output
from miles_repro.tasks import Score, Task

Scores = Mapping[str, Score]
"""``fused`` and each modality -> its loss and metrics on one split."""


@dataclass(frozen=True)
class Needs:
    """What a strategy requires; checked before a run starts, with the reason in the error.

    heads: ``trained`` where the strategy's loss trains unimodal heads (Eq. 3), else ``none``.
    fusions, tasks: names it supports; None = any. min/max_modalities: how many it is defined for.
    teachers: a frozen unimodal model of every modality. passes: what an epoch costs, in epochs of
    vanilla training (for the plan; what was measured corrects it).
    """

    heads: Heads = "none"
    fusions: frozenset[str] | None = None
    tasks: frozenset[str] | None = None
    min_modalities: int = 2
    max_modalities: int | None = None
    teachers: bool = False
    passes: float = 1.0


@dataclass
class State:
    """What the loop reads back after every hook.

    lr_factors: group name -> factor on base rate x schedule (absent = 1);
    frozen: names of groups that take no step and keep their buffers; stop: end the run;
    edited: ``on_epoch_end`` changed weights that should be validated before they train on.
    """

    lr_factors: dict[str, float] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    stop: bool = False
    edited: bool = False


@dataclass_transform(kw_only_default=True, field_specifiers=(hyper,))
class Strategy:
    """Base strategy: the multimodal loss alone (vanilla). Override what differs.

    Group names are ``encoder.<m>``, ``head.<m>``, ``fusion`` and those of ``modules``.
    ``persistent`` names the attributes, beside the base ones, that a resumed run must find again:
    plain numbers, strings, tensors, and lists or dicts of them.
    """

    needs: ClassVar[Needs] = Needs()
    persistent: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hooks = [k for k, v in vars(Strategy).items() if callable(v) and not k.startswith("_")]
        for name, value in vars(cls).items():
            if not callable(value) or name.startswith("_") or hasattr(Strategy, name):
                continue
            if name.startswith("on_") or difflib.get_close_matches(name, hooks, cutoff=0.85):
                raise TypeError(
                    f"{cls.__name__}.{name} is not a hook and would never be called; "
                    f"hooks are {', '.join(sorted(hooks))}"
                )
        dataclasses.dataclass(kw_only=True, repr=False, eq=False)(cls)

    def __post_init__(self) -> None:
        check(self)
        self.state = State()

    # --- before training --------------------------------------------------------------------

    def restrict(self, modalities: list[str]) -> list[str]:
        """The modalities the model is built for; all of them unless a strategy trains fewer."""
        return modalities

    def modules(self, ctx: Context) -> dict[str, nn.Module]:
        """Trainable modules of the strategy's own, by group name; called before ``setup``.

        They belong to the model from then on: optimizer, clipping, checkpoints, best weights.
        A resumed run calls this with the strategy's state restored, and must get all the modules
        that the saved run had, those of ``ctx.add`` included.
        """
        return {}

    def setup(self, ctx: Context) -> None:
        """Once, before the optimizer exists."""

    def on_fit_start(self, ctx: Context) -> None:
        """Once, before the first epoch."""

    # --- an epoch ---------------------------------------------------------------------------

    def on_epoch_start(self, ctx: Context) -> None:
        """Before each epoch's first batch."""

    def order(self, ctx: Context, rows: Tensor) -> Sequence[Segment]:
        """This epoch's samples, from the training ``rows`` (N,): repeats, masks and segments."""
        return [Segment(ctx.shuffled(rows))]

    def step(self, ctx: Context, batch: Batch) -> Logits:
        """Everything that one batch does. Returns the logits that the running scores count."""
        with ctx.autocast():
            out = ctx.forward(batch)
            loss = self.loss(ctx, batch, out)
            logits = ctx.logits(out)  # before the step changes the heads
        self.backward(ctx, batch, out, loss)
        ctx.update()
        return logits

    def features(self, ctx: Context, batch: Batch, z: dict[str, Tensor]) -> dict[str, Tensor]:
        """Between encoders and fusion, on training batches only; z_m is (B, d_m)."""
        return z

    def loss(self, ctx: Context, batch: Batch, out: Output) -> Tensor:
        """The scalar to minimise on one batch."""
        return ctx.task.loss(out.fused, batch.y)

    def backward(self, ctx: Context, batch: Batch, out: Output, loss: Tensor) -> None:
        """Gradients of ``loss``; modulate them after ``super().backward(...)``."""
        ctx.backward(loss)

    def on_epoch_end(self, ctx: Context, train: Scores, val: Scores) -> None:
        """After validation. ``train`` holds the running scores of the epoch's own batches."""

    def log(self) -> dict[str, float]:
        """Numbers worth a curve, read after ``on_epoch_end``."""
        return {}

    # --- predictions: a row's must not depend on the rows beside it ---------------------------

    def predict(self, ctx: Context, out: Output) -> Tensor:
        """The fused prediction (B, C), in training, validation and test alike."""
        return out.fused

    def unimodal(self, ctx: Context, out: Output) -> dict[str, Tensor]:
        """Each modality's own prediction (B, C)."""
        return out.unimodal

    # --- resuming ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run must find again: plain containers, numbers and tensors."""
        own = {name: getattr(self, name) for name in self.persistent}
        s = self.state
        return {
            "lr_factors": dict(s.lr_factors),
            "frozen": sorted(s.frozen),
            "stop": s.stop,
            **own,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` gave."""
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


def joint_weights(modalities: Sequence[str]) -> dict[str, float]:
    """Weights of MILES Eq. 3: L = L_AB + L_A + L_B."""
    return {"fused": 1.0, **dict.fromkeys(modalities, 1.0)}
