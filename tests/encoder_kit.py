"""What the tests of encoders share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def assert_gradient_everywhere(module: nn.Module, out: Tensor) -> None:
    out.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
