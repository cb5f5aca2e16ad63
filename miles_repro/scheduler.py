"""MILES for any training loop: ``from miles_repro import MILES``, nothing else of this package."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, SupportsFloat, get_args

import torch
from torch.optim import Optimizer

from miles_repro.factors import Member, RateFactors
from miles_repro.miles import (
    Mode,
    Rule,
    conditional_utilization,
    dominant,
    lr_factors,
    utilization_gap,
)

_STATE = ("factors", "tau", "mu", "reset_other", "mode", "rule")
_LATEST = ("utilization", "delta", "last_epoch")


class MILES:
    """Modality-informed learning-rate scheduler (arXiv 2510.17394, Algorithm 1).

    After each validation, :meth:`step` compares the fused metric with each modality's own and
    slows the modality that dominates until the next call::

        scheduler = MILES(optimizer, groups={"audio": audio_net, "video": video_net})
        for epoch in range(epochs):
            train(); acc = validate()
            scheduler.step(fused=acc.fused, audio=acc.audio, video=acc.video)

    The factor is applied inside ``optimizer.step()`` only: ``param_groups[i]["lr"]`` always holds
    what the user or an ordinary torch scheduler wrote there, so the two compose and neither
    compounds or overwrites the other. Checkpoints hold that rate and monitors log it;
    :meth:`get_last_lr` gives the rates in effect. Weight decay that an optimizer multiplies with
    the rate (SGD, AdamW) is slowed with it.

    An optimizer has one MILES: a new one takes over, with a warning, and the former is detached.
    MILES acts as long as it lives, or until :meth:`detach`. Wrappers that share their optimizer's
    parameter groups (timm's Lookahead, accelerate, Lightning) may be given in its place. Replicas
    agree: where ``torch.distributed`` is initialised every rank calls :meth:`step`, and the
    metrics of rank 0 decide; reduce them over the ranks first (``all_reduce`` the counts of right
    answers and of samples, then divide), or rank 0 sees its own shard alone.

    Args:
        optimizer: any torch optimizer. Each modality's parameters are parameter groups of their
            own; the fusion layer's are in no modality's groups and keep their rate.
        groups: modality -> its module, parameters, named parameters, or indices of its parameter
            groups (the parameters they hold now), or a list of these. Parameters count, not
            groups: a layer frozen now and named here is slowed once ``add_param_group`` adds it.
        tau: delta up to which nothing is slowed (>= 0; paper: 0.2).
        mu: factor on the dominant modality's rate (0 < mu <= 1; paper: 0.5).
        reset_other: whether a modality slowed earlier is released when the other one is slowed
            (the paper's Algorithm 1 leaves it open; False is its literal reading).
        mode: ``max`` for metrics that are better the larger they are, ``min`` for losses.
        rule: with three modalities and more, slow the strongest (``largest_pair``) or each one
            that dominates another (``all_pairs``); see :func:`miles_repro.miles.lr_factors`.

    Attributes:
        utilization, delta: Eq. 4 and Eq. 5 of the latest metrics (empty and None before).
        last_epoch: number of :meth:`step` calls so far.

    Raises:
        TypeError: ``optimizer`` is no torch optimizer.
        ValueError: a value out of range, fewer than two modalities, or groups that do not match
            the optimizer's parameter groups.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        groups: Mapping[str, Member | Iterable[Member]],
        tau: float = 0.2,
        mu: float = 0.5,
        reset_other: bool = True,
        *,
        mode: Mode = "max",
        rule: Rule = "largest_pair",
    ) -> None:
        _check(tau, mu, mode, rule)
        if len(groups) < 2:
            raise ValueError(f"MILES balances two modalities or more, got {list(groups)}")
        self._rates = RateFactors(optimizer, groups)
        self.tau, self.mu, self.reset_other = tau, mu, reset_other
        self.mode, self.rule = mode, rule
        self.utilization: dict[str, float] = {}
        self.delta: float | None = None
        self.last_epoch = 0

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer given."""
        return self._rates.optimizer

    @property
    def factors(self) -> dict[str, float]:
        """Modality -> factor on its rate until the next :meth:`step`: 1, or ``mu``."""
        return dict(self._rates.factors)

    def step(
        self,
        /,
        fused: SupportsFloat,
        unimodal: Mapping[str, SupportsFloat] | SupportsFloat | None = None,
        **metrics: SupportsFloat,
    ) -> dict[str, float]:
        """Set the factors for the steps to come from the latest validation metrics.

        Args:
            fused: metric of the multimodal prediction: accuracy, F1; a loss with ``mode="min"``.
            unimodal: metric of each modality's own prediction, by modality: for names that are
                no keyword (``step(fused=0.8, unimodal={"fused": 0.7, "x-ray": 0.3})``).
            metrics: the same as keywords: ``step(fused=0.8, image=0.7, audio=0.3)``.

        Returns:
            modality -> factor on its learning rate: 1, or ``mu``.

        Raises:
            ValueError: the names are not those of the groups, or a parameter group mixes
                modalities by now.
            RuntimeError: this MILES is detached.

        Warns where Eq. 4 is undefined, and where no ``optimizer.step()`` was seen since the last
        call: the order is wrong, or the loop steps another optimizer.
        """
        if not self._rates.attached:
            raise RuntimeError("this MILES is detached from its optimizer: make a new one")
        if isinstance(unimodal, Mapping):
            metrics = {**unimodal, **metrics}
        elif unimodal is not None:  # a modality of this name
            metrics["unimodal"] = unimodal
        names = list(self.factors)
        if set(metrics) != set(names):
            raise ValueError(f"step() wants fused and {names}, got {list(metrics)}")
        if absent := self._rates.check():
            _warn(f"the optimizer holds no parameters of {', '.join(sorted(absent))}")
        if not self._rates.stepped:
            _warn("no optimizer.step() since the last MILES.step(): call it after training")
        own = [float(fused), *(float(metrics[m]) for m in names)]
        total, *values = _of_rank_0(own)
        self._rates.factors = self._decide(total, dict(zip(names, values, strict=True)))
        self._rates.stepped = False
        self.last_epoch += 1
        return self.factors

    def _decide(self, fused: float, metrics: dict[str, float]) -> dict[str, float]:
        if not (fused > 0 and all(0 <= v < math.inf for v in (fused, *metrics.values()))):
            shown = ", ".join(f"{m}={v:g}" for m, v in {"fused": fused, **metrics}.items())
            what = "MILES is defined for finite metrics, fused positive, none negative"
            _warn(f"{shown}: {what}", level=4)
        self.utilization = conditional_utilization(fused, metrics, self.mode)
        self.delta = utilization_gap(fused, metrics)
        factors = lr_factors(fused, metrics, self.tau, self.mu, self.rule, self.mode)
        if not self.reset_other and dominant(fused, metrics, self.tau, self.mode) is not None:
            factors = {m: self.factors[m] if f == 1 else f for m, f in factors.items()}
        return factors

    def get_last_lr(self) -> list[float]:
        """The rate in effect for each parameter group of the optimizer, at any moment."""
        return self._rates.rates()

    def detach(self) -> None:
        """Leave the optimizer alone from now on: rates are what stands in it. May be repeated."""
        self._rates.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`load_state_dict` needs, as plain numbers, strings and dicts of them."""
        return {key: copy.copy(getattr(self, key)) for key in (*_STATE, *_LATEST)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`; its tau, mu and switches replace this object's.

        Raises:
            ValueError: not a state of MILES, other modalities, or a value out of range; nothing
                is loaded then.
        """
        lacking = [key for key in (*_STATE, *_LATEST) if key not in state]
        if lacking:
            raise ValueError(f"this is no state of MILES: it lacks {', '.join(lacking)}")
        factors = dict(state["factors"])
        if set(factors) != set(self.factors):
            raise ValueError(f"this state is for {list(factors)}, not {list(self.factors)}")
        _check(state["tau"], state["mu"], state["mode"], state["rule"])
        if not all(0 < f <= 1 for f in factors.values()):
            raise ValueError(f"factors={factors} must be above 0 and at most 1")
        self._rates.factors = {m: factors[m] for m in self.factors}
        for key in (*_STATE[1:], *_LATEST):
            setattr(self, key, copy.copy(state[key]))


def _check(tau: float, mu: float, mode: str, rule: str) -> None:
    if not (tau >= 0 and math.isfinite(tau)):
        raise ValueError(f"tau={tau} must not be negative, and finite")
    if not 0 < mu <= 1:
        raise ValueError(f"mu={mu} must be above 0 and at most 1")
    for name, value, choices in (("mode", mode, get_args(Mode)), ("rule", rule, get_args(Rule))):
        if value not in choices:
            raise ValueError(f"{name}={value!r} must be {' or '.join(map(repr, choices))}")


def _warn(text: str, level: int = 3) -> None:
    warnings.warn(text, stacklevel=level)


def _of_rank_0(values: list[float]) -> list[float]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(values, src=0)
    return values
