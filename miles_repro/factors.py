"""Factors on learning rates that are in effect inside ``optimizer.step()`` and nowhere else."""

from __future__ import annotations

import functools
import types
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

Member = nn.Module | Tensor | tuple[str, Tensor] | int
"""A module, a parameter, a named parameter, or the index of a parameter group."""

_OWNERS: weakref.WeakKeyDictionary[Optimizer, weakref.ref[RateFactors]] = (
    weakref.WeakKeyDictionary()
)


class RateFactors:
    """Multiplies the rates of named sets of parameters, during each step of one optimizer.

    Wraps ``optimizer.step`` on the instance, as torch's own schedulers do, and puts the rates back
    whatever happens inside; a checkpoint taken inside holds the optimizer's own rates. One
    optimizer has one owner of its factors: a new one takes over, with a warning.

    Args:
        optimizer: any torch optimizer, or a wrapper that shares its parameter groups.
        groups: name -> its module, parameters, named parameters, indices of parameter groups (the
            parameters they hold now), or a list of these. Parameter groups may come and go later,
            as long as none mixes two names' parameters.

    Attributes:
        factors: name -> factor, 1 at first.
        stepped: whether ``optimizer.step()`` was called since this was last set to False.
        attached: whether the factors are in effect (False after :meth:`detach`).

    Raises:
        TypeError: ``optimizer`` is no torch optimizer.
        ValueError: groups that do not match the optimizer's parameter groups.
    """

    def __init__(
        self, optimizer: Optimizer, groups: Mapping[str, Member | Iterable[Member]]
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"a torch.optim.Optimizer is needed, not a {type(optimizer).__name__}: pass the "
                "optimizer that it wraps"
            )
        self.optimizer = optimizer
        self.factors = dict.fromkeys(groups, 1.0)
        self._name_of = _named_parameters(optimizer, groups)
        self._slowed: list[tuple[dict[str, Any], Any, Any]] = []  # group, own rate, slowed rate
        self._inside, self.stepped = 0, False
        self._chain = _chain(optimizer)
        self.check()
        self._attach()

    def check(self) -> set[str]:
        """Names without parameters in the optimizer; ValueError where a group mixes names.

        Also gives each group a rate tensor of its own where several share one.
        """
        present = set()
        for i, group in enumerate(self._chain[-1].param_groups):
            names = dict.fromkeys(self._name_of.get(p) for p in group["params"])
            if len(names) > 1:
                name = next(n for n in names if n is not None)
                raise ValueError(
                    f"parameter group {i} mixes {name} with other parameters: give each modality "
                    "parameter groups of its own"
                )
            present |= set(names)
        _unshare(self._chain[-1])
        return set(self.factors) - present

    def rates(self) -> list[float]:
        """The rate in effect for each parameter group, inside of a step or outside."""
        return [float(self._rate(g)) * self._factor(g) for g in self._chain[-1].param_groups]

    def detach(self) -> None:
        """Leave the optimizer alone from now on. May be repeated."""
        self.attached = False
        self._hook.remove()
        for optimizer in self._chain:
            if _owner(optimizer) is self:
                del _OWNERS[optimizer]

    def _attach(self) -> None:
        for former in {o for optimizer in self._chain if (o := _owner(optimizer)) is not None}:
            former.detach()
            warnings.warn(
                "this optimizer had a scheduler of this kind already: that one is detached now",
                stacklevel=4,
            )
        _OWNERS.update(dict.fromkeys(self._chain, weakref.ref(self)))
        _wrap_step(self.optimizer)
        self._hook = self._chain[-1].register_state_dict_post_hook(_store_own_rates)
        self.attached = True

    def _factor(self, group: Mapping[str, Any]) -> float:
        name = self._name_of.get(group["params"][0]) if group["params"] else None
        return self.factors[name] if name is not None and self.attached else 1.0

    def _rate(self, group: Mapping[str, Any]) -> float | Tensor:
        """The group's own rate."""
        for slowed_group, rate, slowed in self._slowed:
            if slowed_group is group and group["lr"] is slowed:
                return rate
        return group["lr"]

    def _slow(self, stepped: Optimizer) -> None:
        self._restore()  # what an interrupt in the middle of a restore has left
        self._inside, self.stepped = id(stepped), True
        for group in self._chain[-1].param_groups:
            factor = self._factor(group)
            if factor == 1:
                continue
            rate = group["lr"]
            if isinstance(rate, Tensor):  # in place: a compiled step holds on to the tensor
                self._slowed.append((group, rate.clone(), rate))
                rate.mul_(factor)
            else:
                slowed = rate * factor
                self._slowed.append((group, rate, slowed))
                group["lr"] = slowed

    def _restore(self) -> None:
        self._inside = 0
        for group, rate, slowed in self._slowed:
            if group["lr"] is not slowed:
                continue  # a rate set inside the step stays
            if isinstance(slowed, Tensor):
                slowed.copy_(rate)
            else:
                group["lr"] = rate
        self._slowed.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in {"_chain", "_hook"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, by deepcopy or pickle, acts on its own copy of the optimizer."""
        vars(self).update(state)
        attached = self.attached
        for group, rate, _ in self._slowed:  # copied inside of a step
            group["lr"] = rate
        self._slowed, self._inside = [], 0
        self._chain = _chain(self.optimizer)
        self._attach()
        if not attached:
            self.detach()


def _owner(optimizer: Optimizer) -> RateFactors | None:
    reference = _OWNERS.get(optimizer)
    return None if reference is None else reference()


def _chain(optimizer: Optimizer) -> list[Optimizer]:
    """The optimizer, what it wraps, and so on down to the one that updates the parameters."""
    chain = [optimizer]
    groups = optimizer.param_groups
    while inner := [
        value
        for value in vars(chain[-1]).values()
        if isinstance(value, Optimizer) and value.param_groups is groups and value not in chain
    ]:
        chain.append(inner[0])
    return chain


def _unshare(optimizer: Optimizer) -> None:
    """Give each parameter group a rate tensor of its own, shared neither nor the default."""
    used = [optimizer.defaults.get("lr")]
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            if any(group["lr"] is other for other in used):
                group["lr"] = group["lr"].clone()
            used.append(group["lr"])


def _wrap_step(optimizer: Optimizer) -> None:
    """Let ``optimizer.step()`` ask for its owner's factors; once, whoever the owner will be."""
    bound: Any = optimizer.step
    if hasattr(bound, "_asks_owner"):
        return
    if isinstance(bound, types.MethodType) and bound.__self__ is optimizer:
        function = bound.__func__
    else:  # an ordinary function that another scheduler put there

        @functools.wraps(bound)
        def function(_: Optimizer, *args: Any, **kwargs: Any) -> Any:
            return bound(*args, **kwargs)

    @functools.wraps(function)
    def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        owner = _owner(self)
        # Inside already: a wrapper steps what it wraps (itself again: an interrupt left it inside).
        if owner is None or owner._inside not in (0, id(self)):
            return function(self, *args, **kwargs)
        try:
            owner._slow(self)
            return function(self, *args, **kwargs)
        finally:
            owner._restore()

    step._asks_owner = True  # type: ignore[attr-defined]
    # A bound method: torch's schedulers wrap it again, and a deepcopy is bound to the copy.
    optimizer.step = types.MethodType(step, optimizer)  # type: ignore[method-assign]


def _store_own_rates(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """State-dict hook: a checkpoint taken inside of a step holds the optimizer's own rates."""
    owner = _owner(optimizer)
    if owner is not None:
        for packed, group in zip(state["param_groups"], optimizer.param_groups, strict=True):
            packed["lr"] = owner._rate(group)


def _named_parameters(
    optimizer: Optimizer, groups: Mapping[str, Member | Iterable[Member]]
) -> dict[Tensor, str]:
    """Parameter -> name; each belongs to one name, and none that trains is left out."""
    name_of: dict[Tensor, str] = {}
    held = {p for group in optimizer.param_groups for p in group["params"]}
    for name, members in groups.items():
        own = list(_tensors(name, members, optimizer))
        training = [p for p in own if p.requires_grad]
        missing = [p for p in training if p not in held]
        if not own or (missing and len(missing) == len(training)):
            raise ValueError(f"the optimizer holds no parameters of {name}")
        if missing:
            raise ValueError(
                f"{name}: the optimizer holds only {len(training) - len(missing)} of the "
                f"{len(training)} parameters that need a gradient (missing: one of shape "
                f"{tuple(missing[0].shape)})"
            )
        for p in own:
            if name_of.setdefault(p, name) != name:
                raise ValueError(
                    f"a parameter of shape {tuple(p.shape)} belongs to {name_of[p]} and {name}"
                )
    return name_of


def _tensors(name: str, members: object, optimizer: Optimizer) -> Iterator[Tensor]:
    match members:
        case Tensor():
            yield members
        case nn.Module():
            yield from members.parameters()
        case int():
            if not 0 <= members < len(optimizer.param_groups):
                raise ValueError(f"{name}: the optimizer has no parameter group {members}")
            yield from optimizer.param_groups[members]["params"]
        case (str(), Tensor() as parameter):
            yield parameter
        case Iterable() if not isinstance(members, (str, bytes, Mapping)):
            for member in members:
                yield from _tensors(name, member, optimizer)
        case _:
            raise ValueError(
                f"{name}: give a module, parameters, named parameters or indices of parameter "
                f"groups, not a {type(members).__name__}"
            )
