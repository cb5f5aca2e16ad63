"""UMT: the distance, the loss within its window and after it, and their gradients."""

import pytest
import torch
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

from miles_repro.strategies.umt import UMT, feature_distance


def distance(v: Vector) -> None:
    student, teacher = (torch.tensor(v["inputs"][k]) for k in ("student", "teacher"))
    found = float(feature_distance(student, teacher))
    assert found == pytest.approx(v["expected"]["mse"], abs=v["abs_tol"])
    scaled = v["hyperparameters"]["scale"] * found
    assert scaled == pytest.approx(v["expected"]["term"], abs=v["abs_tol"])
    with pytest.raises(ValueError, match=r"features \(2, 1\), those of the teacher \(2, 2\)"):
        feature_distance(student[:, :1], teacher)


def loss(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    strategy = UMT(weight=h["scaling"], ends=(h["ends"] + 1) / 100)
    teachers = {m: Given(i[f"teacher_feat_{m}"]) for m in MODALITIES}
    fusion = concat(i["W_head"], i["b_head"])
    ctx = context(strategy, encoders_of(i), fusion, epochs=100, teachers=teachers)
    ctx.epoch = i["epoch"] + 1
    batch = batch_of(i, i["labels"])
    out = ctx.forward(batch)
    for m in MODALITIES:
        found = feature_distance(out.features[m], teachers[m](batch.x[m])[0]).item()
        assert found == pytest.approx(want["mse"][m], abs=v["abs_tol"])
    close_gradients(gradients(ctx, batch), v, encoder_and_head(i))
    assert strategy.loss(ctx, batch, out).item() == pytest.approx(want["loss"], abs=v["abs_tol"])


ROW = Row(
    touches=[{"encoder.image", "encoder.audio"}],
    neutral=[({"strategy.weight": 0.0}, "vanilla"), ({"strategy.ends": 0.0}, "vanilla")],
    golden={"umt_mse": distance, "umt_": loss},
)
