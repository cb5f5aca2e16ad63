"""MIMO: a smooth maximum over unimodal losses."""

import pytest
import torch
from rows import Row, Vector

from miles_repro.strategies.mimo import mimo_loss


def mimo(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    unimodal = torch.tensor(i["L_uni"], dtype=torch.float64, requires_grad=True)
    fused = torch.tensor(i["L_fused"], dtype=torch.float64)
    loss = mimo_loss(fused, list(unimodal), h["lam"], h["mu"])
    loss.backward()
    assert loss.item() == pytest.approx(want["loss"], abs=v["abs_tol"])
    assert unimodal.grad is not None
    assert unimodal.grad.tolist() == pytest.approx(want["head_weights"], abs=v["abs_tol"])


ROW = Row(
    like="vanilla_aux",
    touches=[{"encoder.image", "head.image", "encoder.audio", "head.audio"}],
    neutral=[({"strategy.lam": 0.0}, "vanilla")],
    golden={"mimo": mimo},
)
