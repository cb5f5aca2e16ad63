"""MILES for any training loop: ``from miles_repro import MILES``, nothing else of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from miles_repro.strategies.miles import (
    conditional_utilization,
    dominant,
    lr_factors,
    utilization_gap,
)


class MILES:
    """Modality-informed learning-rate scheduler (arXiv 2510.17394, Algorithm 1).

    After each validation, :meth:`step` compares the fused metric with each modality's own and
    slows the modality that dominates until the next call::

        scheduler = MILES(optimizer, groups={"audio": audio_net.parameters(),
                                             "video": video_net.parameters()})
        for epoch in range(epochs):
            train(); acc = validate()
            scheduler.step(fused=acc.fused, audio=acc.audio, video=acc.video)

    The factor is applied inside ``optimizer.step()`` only: ``param_groups[i]["lr"]`` always holds
    what the user or an ordinary torch scheduler wrote there, so the two compose and neither
    compounds or overwrites the other. :meth:`get_last_lr` gives the rates in effect.

    Args:
        optimizer: any torch optimizer. Each modality's parameters are parameter groups of their
            own; the fusion layer's are in no modality's groups and keep their rate.
        groups: modality -> its parameters (tensors), or indices of its parameter groups.
        tau: delta up to which nothing is slowed (>= 0; paper: 0.2).
        mu: factor on the dominant modality's rate (0 < mu <= 1; paper: 0.5).
        reset_other: whether a modality slowed earlier is released when the other one is slowed
            (the paper's Algorithm 1 leaves it open; False is its literal reading).

    Raises:
        ValueError: a value out of range, fewer than two modalities, or groups that do not match
            the optimizer's parameter groups.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        groups: Mapping[str, Iterable[Tensor] | Iterable[int]],
        tau: float = 0.2,
        mu: float = 0.5,
        reset_other: bool = True,
    ) -> None:
        if tau < 0:
            raise ValueError(f"tau={tau} must not be negative")
        if not 0 < mu <= 1:
            raise ValueError(f"mu={mu} must be above 0 and at most 1")
        if len(groups) < 2:
            raise ValueError(f"MILES balances two modalities or more, got {list(groups)}")
        self.optimizer, self.tau, self.mu, self.reset_other = optimizer, tau, mu, reset_other
        self._groups = _group_indices(optimizer, groups)
        self.factors = dict.fromkeys(groups, 1.0)
        self.utilization: dict[str, float] = {}
        self.delta: float | None = None
        self._base: dict[int, float | Tensor] = {}
        optimizer.register_step_pre_hook(self._slow)
        optimizer.register_step_post_hook(self._restore)

    def step(self, *, fused: float, **unimodal: float) -> dict[str, float]:
        """Set the factors for the steps to come from the latest validation metrics.

        Args:
            fused: metric of the multimodal prediction, larger is better (accuracy, F1).
            unimodal: metric of each modality's own prediction, by modality name.

        Returns:
            modality -> factor on its learning rate: 1, or ``mu``.
        """
        if set(unimodal) != set(self.factors):
            raise ValueError(f"step() wants fused and {list(self.factors)}, got {list(unimodal)}")
        metrics = {m: float(v) for m, v in unimodal.items()}
        fused = float(fused)
        self.utilization = conditional_utilization(fused, metrics)
        self.delta = utilization_gap(fused, metrics)
        factors = lr_factors(fused, metrics, self.tau, self.mu)
        if not self.reset_other and dominant(fused, metrics, self.tau) is not None:
            factors = {m: self.factors[m] if f == 1 else f for m, f in factors.items()}
        self.factors = {m: factors[m] for m in self.factors}
        return dict(self.factors)

    def get_last_lr(self) -> list[float]:
        """The rate in effect for each parameter group of the optimizer."""
        rates = [float(g["lr"]) for g in self.optimizer.param_groups]
        for m, indices in self._groups.items():
            for i in indices:
                rates[i] *= self.factors[m]
        return rates

    def state_dict(self) -> dict[str, Any]:
        return {"factors": dict(self.factors), "tau": self.tau, "mu": self.mu}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if set(state["factors"]) != set(self.factors):
            raise ValueError(
                f"this state is for {list(state['factors'])}, not {list(self.factors)}"
            )
        self.factors, self.tau, self.mu = dict(state["factors"]), state["tau"], state["mu"]

    def _slow(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._restore(optimizer, args, kwargs)  # an interrupted step never reached its post hook
        for m, indices in self._groups.items():
            if self.factors[m] != 1:
                for i in indices:
                    group = optimizer.param_groups[i]
                    self._base[i] = group["lr"]
                    group["lr"] = group["lr"] * self.factors[m]

    def _restore(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for i, lr in self._base.items():
            optimizer.param_groups[i]["lr"] = lr
        self._base.clear()


def _group_indices(
    optimizer: torch.optim.Optimizer, groups: Mapping[str, Iterable[Tensor] | Iterable[int]]
) -> dict[str, list[int]]:
    """Parameter-group indices of each modality; a group belongs to one modality or to none."""
    owner: dict[int, str] = {}
    indices: dict[str, list[int]] = {}
    param_groups = optimizer.param_groups
    for modality, members in groups.items():
        entries = list(members)
        wanted = {id(e) for e in entries if isinstance(e, Tensor)}
        found = [e for e in entries if isinstance(e, int)]
        for i, group in enumerate(param_groups):
            inside = [id(p) in wanted for p in group["params"]]
            if any(inside) and not all(inside):
                raise ValueError(
                    f"parameter group {i} mixes {modality} with other parameters: give each "
                    "modality parameter groups of its own"
                )
            if inside and all(inside):
                found.append(i)
        if not found:
            raise ValueError(f"the optimizer holds no parameters of {modality}")
        for i in found:
            if not 0 <= i < len(param_groups):
                raise ValueError(f"{modality}: the optimizer has no parameter group {i}")
            if i in owner:
                raise ValueError(f"parameter group {i} belongs to {owner[i]} and {modality}")
            owner[i] = modality
        indices[modality] = found
    return indices
