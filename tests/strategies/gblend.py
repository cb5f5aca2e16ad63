"""G-Blend: the weights by numbers. It has no neutral point of its own: see test_contract."""

import pytest
from rows import Row, Vector

from miles_repro.copies import Curve
from miles_repro.strategies.gblend import blend_weights


def gblend(v: Vector) -> None:
    curves = {
        head: Curve(**c) if isinstance(c, dict) else Curve(*c)
        for head, c in v["inputs"]["losses_per_head"].items()
    }
    want = v["expected"]
    if "paper" in want:
        want = {head: value["weight"] for head, value in want["paper"].items()}
    assert blend_weights(curves) == pytest.approx(want, abs=v["abs_tol"])


ROW = Row(
    like="vanilla_aux",
    touches=[  # a head that gets all the weight keeps that of the plain losses, 1
        {"encoder.image", "head.image", "encoder.audio", "head.audio", "fusion"},
        {"encoder.image", "encoder.audio", "head.audio", "fusion"},
    ],
    golden={"gblend": gblend},
)
