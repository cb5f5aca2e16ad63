"""What may go wrong around ``MILES`` in a notebook, under preemption, with other people's code."""

from __future__ import annotations

import gc
import math
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from scheduler_kit import (
    EVEN,
    LR,
    SLOW_AUDIO,
    SLOW_IMAGE,
    Optimizer,
    network,
    optimizer_of,
    scheduler_of,
    take_step,
)
from torch import nn
from torch.optim import lr_scheduler

from miles_repro import MILES

pytestmark = pytest.mark.filterwarnings("ignore:no optimizer.step")
SLOWED = pytest.approx([LR / 2, LR, LR], abs=1e-6)
PLAIN = pytest.approx([LR] * 3, abs=1e-6)


def rates(optimizer: Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


# --- one owner ----------------------------------------------------------------------------------


def test_a_second_miles_takes_over_and_says_so() -> None:
    model = network()
    optimizer = optimizer_of(model)
    first = scheduler_of(model, optimizer)
    first.step(**SLOW_IMAGE)
    with pytest.warns(UserWarning, match="already: that one is detached"):
        second = scheduler_of(model, optimizer)
    assert take_step(model, optimizer) == PLAIN
    second.step(**SLOW_IMAGE)
    assert take_step(model, optimizer) == SLOWED  # not a quarter
    assert second.get_last_lr() == [LR / 2, LR, LR]
    assert first.get_last_lr() == [LR] * 3
    with pytest.raises(RuntimeError, match="detached"):
        first.step(**SLOW_IMAGE)


def test_detach_gives_the_optimizer_back() -> None:
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)  # has wrapped the step again
    miles.step(**SLOW_IMAGE)
    miles.detach()
    miles.detach()
    assert take_step(model, optimizer) == PLAIN
    assert miles.get_last_lr() == [LR] * 3
    schedule.step()
    assert rates(optimizer) == [LR / 2] * 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler_of(model, optimizer)  # no owner to take over from


def test_lives_as_long_as_its_object() -> None:
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    miles.step(**SLOW_IMAGE)
    gone = weakref.ref(miles)
    del miles
    assert gone() is None  # the optimizer does not keep it
    assert take_step(model, optimizer) == PLAIN
    left = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert left() is None


# --- checkpoints and interrupts ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["closure", "pre hook", "post hook"])
def test_a_checkpoint_taken_inside_a_step_holds_the_own_rates(where: str) -> None:
    """What a signal handler saves before preemption, at any moment of the step."""
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    miles.step(**SLOW_IMAGE)
    seen: list[list[float]] = []

    def save(*_: Any) -> None:
        seen.append([group["lr"] for group in optimizer.state_dict()["param_groups"]])
        assert miles.get_last_lr() == [LR / 2, LR, LR]

    if where == "pre hook":
        optimizer.register_step_pre_hook(save)
    if where == "post hook":
        optimizer.register_step_post_hook(save)
    take_step(model, optimizer)
    if where == "closure":
        optimizer.step(save)  # type: ignore[arg-type]
    assert seen
    assert all(found == [LR] * 3 for found in seen)


def test_save_after_an_interrupt_and_resume_does_not_compound() -> None:
    states = [optimizer_of(network()).state_dict()]
    for _ in range(3):
        model = network()
        optimizer = optimizer_of(model)
        optimizer.load_state_dict(states[-1])
        miles = scheduler_of(model, optimizer)
        miles.step(**SLOW_IMAGE)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(interrupt)
        states.append(optimizer.state_dict())
    assert [state["param_groups"][0]["lr"] for state in states] == [LR] * 4


def interrupt() -> float:
    raise KeyboardInterrupt


def test_an_interrupted_step_does_not_compound() -> None:
    """Ctrl-C in a notebook, an error in a closure."""
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    miles.step(**SLOW_IMAGE)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(interrupt)
        assert rates(optimizer) == [LR] * 3
    assert take_step(model, optimizer) == SLOWED


def test_a_rate_set_after_an_interrupted_step_stays() -> None:
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    miles.step(**SLOW_IMAGE)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(interrupt)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    assert take_step(model, optimizer) == pytest.approx([0.005, 0.01, 0.01], abs=1e-6)
    assert rates(optimizer) == [0.01] * 3


def test_a_rate_set_inside_a_step_stays() -> None:
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    miles.step(**SLOW_IMAGE)

    def warm(*_: Any) -> None:
        optimizer.param_groups[0]["lr"] = 0.03

    hook = optimizer.register_step_post_hook(warm)
    take_step(model, optimizer)
    hook.remove()
    assert rates(optimizer) == [0.03, LR, LR]


# --- replicas, groups that come and go ------------------------------------------------------------


def test_deleted_and_re_added_groups_keep_their_modality() -> None:
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    image = optimizer.param_groups.pop(0)
    miles.step(**SLOW_AUDIO)
    assert miles.get_last_lr() == [LR / 2, LR]  # audio, fusion
    optimizer.add_param_group({"params": image["params"], "lr": LR})
    assert miles.get_last_lr() == [LR / 2, LR, LR]
    miles.step(**SLOW_IMAGE)
    assert miles.get_last_lr() == [LR, LR, LR / 2]
    assert take_step(model, optimizer) == SLOWED


def test_a_layer_unfrozen_later_is_slowed() -> None:
    body, head, audio = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)
    body.requires_grad_(False)
    optimizer = torch.optim.SGD([{"params": list(m.parameters())} for m in (head, audio)], lr=LR)
    miles = MILES(optimizer, {"image": nn.Sequential(body, head), "audio": audio})
    body.requires_grad_(True)
    optimizer.add_param_group({"params": list(body.parameters())})
    miles.step(**SLOW_IMAGE)
    assert miles.get_last_lr() == [LR / 2, LR, LR / 2]


def test_groups_that_go_or_mix_are_told() -> None:
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    gone = optimizer.param_groups.pop(0)
    with pytest.warns(UserWarning, match="holds no parameters of image"):
        miles.step(**EVEN)
    optimizer.param_groups.pop(0)
    optimizer.add_param_group({"params": [*gone["params"], *model["audio"].parameters()]})
    with pytest.raises(ValueError, match="parameter group 1 mixes image with other parameters"):
        miles.step(**EVEN)


def test_parameters_missing_from_the_optimizer_are_refused() -> None:
    model = network()
    groups = [list(model["image"].parameters())[:1], list(model["audio"].parameters())]
    optimizer = torch.optim.SGD([{"params": p} for p in groups], lr=LR)
    with pytest.raises(ValueError, match="image: the optimizer holds only 1 of the 2 parameters"):
        scheduler_of(model, optimizer)


# --- names, members, metrics ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["self", "fused", "unimodal", "metrics", "x-ray"])
def test_any_name_is_a_modality(name: str) -> None:
    model = network()
    miles = MILES(optimizer_of(model), {name: model["image"], "audio": model["audio"]})
    values = {name: 0.7, "audio": 0.3}
    assert miles.step(fused=0.8, unimodal=values) == {name: 0.5, "audio": 1.0}
    if name != "fused":
        assert miles.step(**{"fused": 0.8, **values}) == {name: 0.5, "audio": 1.0}


def members() -> Iterator[tuple[str, Callable[[nn.Module], Any]]]:
    yield "module", lambda m: m
    yield "modules", lambda m: [m]
    yield "parameters", lambda m: m.parameters()
    yield "named parameters", lambda m: m.named_parameters()
    yield "named list", lambda m: list(m.named_parameters())


@pytest.mark.parametrize("form", [pytest.param(f, id=name) for name, f in members()])
def test_modules_and_named_parameters_are_groups(form: Callable[[nn.Module], Any]) -> None:
    model = network()
    named = [{"params": list(m.named_parameters())} for m in model.values()]
    for optimizer in (optimizer_of(model), torch.optim.SGD(named, lr=LR)):
        miles = MILES(optimizer, {m: form(model[m]) for m in ("image", "audio")})
        miles.step(**SLOW_IMAGE)
        assert take_step(model, optimizer) == SLOWED


@pytest.mark.parametrize("wrong", ["encoder", 0.5, {"a": 1}, [None]])
def test_other_members_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="image: give a module, parameters, named parameters or"):
        MILES(optimizer_of(network()), {"image": wrong, "audio": [1]})


def test_only_an_optimizer_is_accepted() -> None:
    class Engine:
        param_groups = ({"params": [], "lr": LR},)

    with pytest.raises(TypeError, match="not a Engine: pass the optimizer that it wraps"):
        MILES(Engine(), {"image": [0], "audio": [1]})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "metrics", [(math.nan, 0.5, 0.4), (0.0, 0.5, 0.4), (0.5, math.inf, 0.4), (0.5, -0.1, 0.4)]
)
def test_metrics_without_a_meaning_warn(metrics: tuple[float, float, float]) -> None:
    model = network()
    miles = scheduler_of(model, optimizer_of(model))
    fused, image, audio = metrics
    with pytest.warns(UserWarning, match=r"image=.*: MILES is defined for finite metrics") as found:
        miles.step(fused=fused, image=image, audio=audio)
    assert {w.filename for w in found} == {__file__}


def test_the_wrong_order_warns() -> None:
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    with pytest.warns(UserWarning, match=r"no optimizer.step\(\) since the last MILES.step"):
        miles.step(**EVEN)
    take_step(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        miles.step(**EVEN)
