"""``miles_repro.MILES`` in somebody else's training loop."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scheduler_kit import (
    COURSE,
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

import miles_repro
from miles_repro import MILES

pytestmark = pytest.mark.filterwarnings("ignore:no optimizer.step")


def test_is_exported() -> None:
    assert "MILES" in miles_repro.__all__
    parameters = inspect.signature(MILES).parameters
    assert list(parameters)[:4] == ["optimizer", "groups", "tau", "mu"]
    assert (parameters["tau"].default, parameters["mu"].default) == (0.2, 0.5)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_slows_the_dominant_modality_and_never_compounds(kind: Any) -> None:
    model = network()
    optimizer = optimizer_of(model, kind, weight_decay=0.0)
    scheduler = scheduler_of(model, optimizer)
    for metrics in COURSE:
        factors = scheduler.step(**metrics)
        want = {
            "image": 0.5 if metrics is SLOW_IMAGE else 1.0,
            "audio": 0.5 if metrics is SLOW_AUDIO else 1.0,
        }
        assert factors == want
        for _ in range(3):
            moved = take_step(model, optimizer)
            assert moved == pytest.approx(
                [LR * want["image"], LR * want["audio"], LR], rel=1e-3, abs=1e-6
            )
        assert scheduler.get_last_lr() == [LR * want["image"], LR * want["audio"], LR]
        assert [g["lr"] for g in optimizer.param_groups] == [LR] * 3  # the user's own


def test_reports_utilization() -> None:
    model = network()
    scheduler = scheduler_of(model, optimizer_of(model))
    assert scheduler.delta is None
    scheduler.step(**SLOW_IMAGE)
    assert scheduler.utilization == pytest.approx({"image": 0.625, "audio": 0.125})
    assert scheduler.delta == pytest.approx(0.5)


def test_literal_reading_leaves_the_other_modality_slow() -> None:
    model = network()
    scheduler = scheduler_of(model, optimizer_of(model), reset_other=False)
    found = [tuple(scheduler.step(**m).values()) for m in (SLOW_IMAGE, SLOW_AUDIO, EVEN)]
    assert found == [(0.5, 1.0), (0.5, 0.5), (1.0, 1.0)]


SCHEDULES: dict[str, Callable[[Optimizer], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda e: 1 / (1 + e)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda e: 0.7),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 4], 0.3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, len(COURSE)),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=4),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, len(COURSE)),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, cycle_momentum=False),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(
        o, 0.2, total_steps=len(COURSE) + 1, cycle_momentum=False
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.3),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.5)],
        milestones=[3],
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=4),
}


def test_every_scheduler_of_torch_is_tried() -> None:
    bases = {"LRScheduler", "_LRScheduler"}
    assert set(lr_scheduler.__all__) - bases <= set(SCHEDULES)


@pytest.mark.filterwarnings("error:Seems like", "error:Detected call of")
@pytest.mark.parametrize("order", ["schedule first", "MILES first"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_composes_with_every_torch_scheduler(name: str, order: str) -> None:
    """Rates are schedule x factor; the schedule is the same as without MILES."""
    alone, model = network(), network()
    reference, optimizer = optimizer_of(alone, momentum=0.0), optimizer_of(model, momentum=0.0)
    expected = SCHEDULES[name](reference)
    if order == "schedule first":
        schedule = SCHEDULES[name](optimizer)
        miles = scheduler_of(model, optimizer)
    else:
        miles = scheduler_of(model, optimizer)
        schedule = SCHEDULES[name](optimizer)
    factors = {"image": 1.0, "audio": 1.0}
    seen = set()
    for metrics in COURSE:
        plain, moved = take_step(alone, reference), take_step(model, optimizer)
        base = [g["lr"] for g in reference.param_groups]
        assert [g["lr"] for g in optimizer.param_groups] == base
        want = [base[0] * factors["image"], base[1] * factors["audio"], base[2]]
        assert miles.get_last_lr() == pytest.approx(want)
        assert plain == pytest.approx(base, abs=1e-6)
        assert moved == pytest.approx(want, abs=1e-6)
        seen.add(round(base[2], 9))
        value = (1.0,) if name == "ReduceLROnPlateau" else ()
        expected.step(*value)
        if order == "schedule first":
            schedule.step(*value)
            factors = miles.step(**metrics)
        else:
            factors = miles.step(**metrics)
            schedule.step(*value)
    assert len(seen) > 1  # the schedule did something


def test_rates_may_be_tensors() -> None:
    model = network()
    groups = [{"params": list(m.parameters())} for m in model.values()]
    optimizer = torch.optim.Adam(groups, lr=torch.tensor(LR))
    scheduler = scheduler_of(model, optimizer)
    scheduler.step(**SLOW_IMAGE)
    assert take_step(model, optimizer) == pytest.approx([LR / 2, LR, LR], rel=1e-3)
    assert scheduler.get_last_lr() == pytest.approx([LR / 2, LR, LR])
    assert all(isinstance(g["lr"], torch.Tensor) for g in optimizer.param_groups)
    rates = [g["lr"] for g in optimizer.param_groups]
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.5)  # torch writes into the tensors
    take_step(model, optimizer)
    schedule.step()
    assert scheduler.get_last_lr() == pytest.approx([LR / 4, LR / 2, LR / 2])
    now = [g["lr"] for g in optimizer.param_groups]
    assert all(a is b for a, b in zip(rates, now, strict=True))


def test_metrics_may_be_tensors() -> None:
    model = network()
    scheduler = scheduler_of(model, optimizer_of(model))
    factors = scheduler.step(**{k: torch.tensor(v) for k, v in SLOW_IMAGE.items()})
    assert factors == {"image": 0.5, "audio": 1.0}


def test_works_with_a_grad_scaler() -> None:
    model = network()
    optimizer = optimizer_of(model)
    scheduler = scheduler_of(model, optimizer)
    scheduler.step(**SLOW_IMAGE)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def scaled_step(factor: float) -> list[float]:
        before = [m.weight.detach().clone() for m in model.values()]
        optimizer.zero_grad()
        scaler.scale(sum(p.sum() for p in model.parameters()) * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        return [
            float((b - m.weight.detach()).mean())
            for b, m in zip(before, model.values(), strict=True)
        ]

    assert scaled_step(1.0) == pytest.approx([LR / 2, LR, LR], abs=1e-6)
    assert scaled_step(float("inf")) == [0.0, 0.0, 0.0]  # the scaler skips this step
    assert scaled_step(1.0) == pytest.approx([LR / 2, LR, LR], abs=1e-6)
    assert [g["lr"] for g in optimizer.param_groups] == [LR] * 3


def test_groups_by_index_several_a_modality_and_more_modalities() -> None:
    parts = {name: nn.Linear(2, 2) for name in "abcdf"}
    optimizer = torch.optim.SGD([{"params": list(p.parameters())} for p in parts.values()], lr=LR)
    scheduler = MILES(optimizer, {"x": [0, 1], "y": [2], "z": parts["d"].parameters()}, tau=0.1)
    assert scheduler.step(fused=0.9, x=0.8, y=0.5, z=0.1) == {"x": 0.5, "y": 1.0, "z": 1.0}
    assert scheduler.get_last_lr() == [LR / 2, LR / 2, LR, LR, LR]
    assert scheduler.step(fused=0.9, x=0.1, y=0.5, z=0.8) == {"x": 1.0, "y": 1.0, "z": 0.5}


def test_group_added_later_keeps_its_rate() -> None:
    model, late = network(), nn.Linear(3, 2)
    optimizer = optimizer_of(model)
    scheduler = scheduler_of(model, optimizer)
    optimizer.add_param_group({"params": list(late.parameters()), "lr": 0.01})
    scheduler.step(**SLOW_IMAGE)
    assert scheduler.get_last_lr() == [LR / 2, LR, LR, 0.01]


@pytest.mark.parametrize(
    "options, groups, words",
    [
        ({"tau": -0.1}, None, "tau=-0.1 must not be negative"),
        ({"mu": 0.0}, None, "mu=0.0 must be above 0 and at most 1"),
        ({"mu": 1.5}, None, "mu=1.5 must be above 0 and at most 1"),
        ({"tau": math.nan}, None, "tau=nan must not be negative"),
        ({"mu": math.nan}, None, "mu=nan must be above 0"),
        ({"mode": "minimum"}, None, "mode='minimum' must be 'max' or 'min'"),
        ({"rule": "pairs"}, None, "rule='pairs' must be 'largest_pair' or 'all_pairs'"),
        ({}, {"image": [0]}, "two modalities or more"),
        ({}, {"image": [0], "audio": []}, "no parameters of audio"),
        ({}, {"image": [0], "audio": [7]}, "audio: the optimizer has no parameter group 7"),
        ({}, {"image": [0], "audio": [-1]}, "no parameter group -1"),
        ({}, {"image": [0], "audio": [0]}, r"shape \(2, 3\) belongs to image and audio"),
    ],
)
def test_errors(options: dict[str, Any], groups: Any, words: str) -> None:
    model = network()
    groups = groups or {"image": [0], "audio": [1]}
    with pytest.raises(ValueError, match=words):
        MILES(optimizer_of(model), groups, **options)


def test_error_where_a_parameter_group_mixes_modalities() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    with pytest.raises(ValueError, match="group 0 mixes image with other parameters"):
        scheduler_of(model, optimizer)
    with pytest.raises(ValueError, match="no parameters of audio"):
        MILES(optimizer_of(model), {"image": [0], "audio": nn.Linear(2, 2).parameters()})


def test_step_wants_every_modality() -> None:
    model = network()
    scheduler = scheduler_of(model, optimizer_of(model))
    with pytest.raises(ValueError, match=r"wants fused and \['image', 'audio'\], got \['image'\]"):
        scheduler.step(fused=0.5, image=0.4)
    with pytest.raises(TypeError):
        scheduler.step(image=0.4, audio=0.2)  # type: ignore[call-arg]


def test_mode_min_is_the_rule_for_losses() -> None:
    model = network()
    scheduler = scheduler_of(model, optimizer_of(model), mode="min")
    assert scheduler.step(fused=0.5, image=0.6, audio=1.0) == {"image": 0.5, "audio": 1.0}
    assert scheduler.utilization == pytest.approx({"image": 1.0, "audio": 0.2})  # (L_B - L_AB)/L_AB
    assert scheduler.delta == pytest.approx(0.8)
    # the fused loss is the largest: its head does not lead yet
    assert scheduler.step(fused=1.1, image=0.6, audio=1.0) == {"image": 1.0, "audio": 1.0}


def test_all_pairs_slows_each_modality_that_dominates_another() -> None:
    model = network()
    groups = {"x": [0], "y": [1], "z": [2]}
    metrics = {"fused": 0.9, "x": 0.8, "y": 0.5, "z": 0.1}
    largest = MILES(optimizer_of(model), groups).step(**metrics)
    every = MILES(optimizer_of(model), groups, rule="all_pairs").step(**metrics)
    assert largest == {"x": 0.5, "y": 1.0, "z": 1.0}
    assert every == {"x": 0.5, "y": 0.5, "z": 1.0}


def test_counts_its_epochs() -> None:
    model = network()
    scheduler = scheduler_of(model, optimizer_of(model))
    assert scheduler.last_epoch == 0
    for metrics in COURSE:
        scheduler.step(**metrics)
    assert scheduler.last_epoch == len(COURSE)
