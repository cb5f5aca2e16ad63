"""A foreign loop that is resumed goes on as if it had never stopped."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from balance_kit import DIMS, groups, parts
from support import same_tensors
from torch import nn

from miles_repro import balance
from miles_repro.fusions.concat import Concat
from miles_repro.fusions.late import Late


def test_a_balancer_resumes() -> None:
    def training() -> tuple[balance.Balancer, dict[str, torch.Tensor], torch.Tensor, Any]:
        encoders, fusion, heads = parts()
        optimizer = groups(*encoders.values(), fusion, *heads.values())
        made = balance.MSES(
            optimizer, encoders, fusion, heads, epochs=5, dims={"image": 8, "audio": 8}
        )
        y = torch.arange(30) % 3
        generator = torch.Generator().manual_seed(0)
        return made, {m: torch.randn(30, 4, generator=generator) for m in encoders}, y, optimizer

    def epoch(b: balance.Balancer, x: Any, y: torch.Tensor, e: int) -> None:
        b.begin(e)
        b.train_step(x, y)
        b.end(val={"fused": 0.9 - 0.1 * e, "image": 0.5 + 0.1 * e, "audio": 0.4})

    straight, x, y, _ = training()
    for e in range(1, 5):
        epoch(straight, x, y, e)
    first, x, y, optimizer = training()
    for e in (1, 2):
        epoch(first, x, y, e)
    state = (first.state_dict(), first.model.state_dict(), optimizer.state_dict())
    second, x, y, optimizer = training()
    second.load_state_dict(state[0])
    second.model.load_state_dict(state[1])
    optimizer.load_state_dict(state[2])
    for e in (3, 4):
        epoch(second, x, y, e)
    assert same_tensors(straight.model.state_dict(), second.model.state_dict())
    assert straight.strategy.log() == second.strategy.log() != {}


@pytest.mark.parametrize("name", ["MLA", "ReconBoost", "AUG", "DiagnosingRelearning"])
def test_what_a_strategy_brought_or_knew_at_first_is_in_its_state(name: str) -> None:
    """A fusion in place of the user's, heads that grew, the first weights."""

    def training(seed: int) -> tuple[balance.Balancer, nn.Module, Any]:
        torch.manual_seed(seed)
        encoders = {m: nn.Sequential(nn.Linear(4, 8), nn.ReLU()) for m in DIMS}
        fusion = Late(DIMS, 3) if name != "DiagnosingRelearning" else Concat(DIMS, 3)
        optimizer = groups(*encoders.values(), fusion)
        own: dict[str, Any] = {
            "AUG": {"tau": 0.0, "every": 0.2},
            "DiagnosingRelearning": {"every": 0.2, "data": {"train": (x, y), "val": (x, y)}},
        }.get(name, {})
        made = getattr(balance, name)(optimizer, encoders, fusion, epochs=6, **own)
        return made, fusion, optimizer

    def epoch(b: balance.Balancer, e: int) -> None:
        b.begin(e)
        b.train_step(x, y)
        b.end(val={"fused": 0.5, "image": 0.4, "audio": 0.6})

    y, generator = torch.arange(30) % 3, torch.Generator().manual_seed(0)
    x = {m: torch.randn(30, 4, generator=generator) for m in DIMS}
    first, fusion, optimizer = training(0)
    for e in (1, 2):
        epoch(first, e)
    state = copy.deepcopy(
        (
            first.state_dict(),
            {m: e.state_dict() for m, e in first.encoders.items()},
            fusion.state_dict(),
            optimizer.state_dict(),
        )
    )
    second, fusion, optimizer = training(1)
    second.load_state_dict(state[0])
    for m, weights in state[1].items():
        second.encoders[m].load_state_dict(weights)
    fusion.load_state_dict(state[2])
    optimizer.load_state_dict(state[3])
    for e in (3, 4, 5):
        epoch(first, e)
        epoch(second, e)
    for head, logits in first.logits(x).items():
        torch.testing.assert_close(second.logits(x)[head], logits, rtol=0, atol=0)
