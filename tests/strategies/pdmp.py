"""PDMP, our definition: who leads, and what its factors stand on."""

import pytest
from rows import Row, Vector, context
from tiny_models import (
    MODALITIES,
    Given,
    batch_of,
    close_gradients,
    concat,
    encoder_and_head,
    encoders_of,
    gradients,
)

from miles_repro.strategies.pdmp import PDMP, coefficients


def who(v: Vector) -> None:
    h, want = v["hyperparameters"], v["expected"]["coeff"]
    given = v["inputs"]["unimodal_validation_metric"]
    several = isinstance(given[0], list)
    for metrics, expected in zip(given, want, strict=True) if several else [(given, want)]:
        named = {str(i): value for i, value in enumerate(metrics)}
        assert list(coefficients(named, **h).values()) == expected


def step(v: Vector) -> None:
    i, h = v["inputs"], v["hyperparameters"]
    metrics = dict(zip(MODALITIES, i["unimodal_validation_metric"], strict=True))
    teachers = {m: Given([[0.0]], metric=value) for m, value in metrics.items()}
    found = {}
    for apply in ("grad", "lr"):
        strategy = PDMP(**h, apply=apply)
        fusion = concat(i["W_head"], i["b_head"])
        ctx = context(strategy, encoders_of(i), fusion, teachers=teachers)
        found[apply] = gradients(ctx, batch_of(i, i["labels"]))
        factors = strategy.state.lr_factors
        rates = dict(zip(("encoder.a", "encoder.v"), v["expected"]["coeff"], strict=True))
        assert factors == (rates if apply == "lr" else {})
        for m, k in zip(MODALITIES, v["expected"]["coeff"], strict=True):
            if apply == "lr":
                found[apply][f"encoders.{m}.weight"] *= k  # what plain SGD makes of the rate
        close_gradients(found[apply], v, encoder_and_head(i))
    with pytest.raises(ValueError, match="metric of v alone is not known"):
        context(PDMP(), encoders_of(i), fusion, teachers={**teachers, "v": Given([[0.0]])})


ROW = Row(
    touches=[{"encoder.image", "encoder.audio"}],
    neutral=[
        ({"strategy.gamma_p": 1.0, "strategy.gamma_r": 1.0}, "vanilla"),
        (
            {"strategy.gamma_p": 1.0, "strategy.gamma_r": 1.0, "strategy.apply": "grad"},
            "vanilla",
        ),
    ],
    golden={"pdmp_gradients": step, "pdmp_": who},
)
