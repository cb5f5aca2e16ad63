"""MSES: stopping parts one by one; the freeze trap."""

from collections.abc import Callable
from typing import cast

import pytest
import torch
from rows import Row, Vector
from torch import nn


def freeze_trap(v: Vector) -> None:
    """Zero gradients move a parameter on; no gradient, which is how the loop freezes, does not."""
    for key, make in (
        (
            "sgd_momentum_after_zero_grad",
            lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01),
        ),
        ("adam_after_zero_grad", lambda p: torch.optim.Adam([p], lr=0.1)),
    ):
        want = v["expected"][key]
        for frozen in (False, True):
            p = nn.Parameter(torch.ones(1))
            optimizer = cast(Callable[[nn.Parameter], torch.optim.Optimizer], make)(p)
            p.grad = torch.ones(1)
            optimizer.step()
            assert p.item() == pytest.approx(want["before"], abs=v["abs_tol"])
            for _ in range(5):
                p.grad = None if frozen else torch.zeros(1)
                optimizer.step()
            after = want["before"] if frozen else want["after5"]
            assert p.item() == pytest.approx(after, abs=v["abs_tol"])


ROW = Row(
    needed=("strategy.patience=0.1",),
    like="vanilla_aux",
    touches=[set()],
    neutral=[({"strategy.patience": 1.0}, "vanilla_aux")],
    golden={"freeze": freeze_trap},
)
