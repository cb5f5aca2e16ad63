"""Vanilla with unimodal losses; Eq. 3 of MILES by numbers."""

import pytest
import torch
from rows import Row, Vector

from miles_repro.model import Output
from miles_repro.strategy import joint_weights, weighted_loss
from miles_repro.tasks import Multiclass


def joint_loss(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    unimodal = {"A": torch.tensor(i["logits_a"]), "B": torch.tensor(i["logits_v"])}
    out = Output({}, torch.tensor(i["logits_fused"]), lambda features: unimodal)
    y = torch.tensor(i["labels"])
    task = Multiclass(3)
    for head, key in (("fused", "L_AB"), ("A", "L_A"), ("B", "L_B")):
        assert float(weighted_loss(task, out, y, {head: 1.0})) == pytest.approx(want[key], abs=1e-6)
    total = float(weighted_loss(task, out, y, joint_weights(["A", "B"])))
    assert total == pytest.approx(want["L"], abs=v["abs_tol"])


ROW = Row(
    like="vanilla",
    neutral=[({"strategy.weight": 0.0}, "vanilla")],
    golden={"joint_loss": joint_loss},
)
