"""G2D: the distillation loss, its gradients, and who learns when."""

import pytest
import torch
from rows import Row, Vector, context
from tiny_models import (
    MODALITIES,
    Given,
    batch_of,
    branches,
    close_gradients,
    encoders_of,
    gradients,
)
from torch import Tensor, nn

from miles_repro.strategies.g2d import G2D, confidence_sum, distillation, learning
from miles_repro.strategies.umt import feature_distance


def loss(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    strategy = G2D(w_feature=h["w_feat"], w_logit=h["w_logit"], temperature=h["temperature"])
    teachers = {m: Given(i[f"teacher_feat_{m}"], i[f"teacher_logits_{m}"]) for m in MODALITIES}
    ctx = context(strategy, encoders_of(i), branches(i, scale=0.5), teachers=teachers)
    batch = batch_of(i, i["labels"])
    out = ctx.forward(batch)
    assert ctx.task.loss(out.fused, batch.y).item() == pytest.approx(want["L_S"], abs=v["abs_tol"])
    for m in MODALITIES:
        z, logits = teachers[m](batch.x[m])
        found = {
            "feat": feature_distance(out.features[m], z),
            "logit": distillation(out.fused, logits, h["temperature"], False),
        }
        for key, term in found.items():
            assert term.item() == pytest.approx(want[f"{key}_{m}"], abs=v["abs_tol"])
    names = {f"W_{m}": f"encoders.{m}.weight" for m in MODALITIES}
    for key, m in (("x", "a"), ("y", "v")):
        names |= {f"W_{key}": f"fusion.layers.{m}.weight", f"b_{key}": f"fusion.layers.{m}.bias"}
    close_gradients(gradients(ctx, batch), v, names)
    assert strategy.loss(ctx, batch, out).item() == pytest.approx(want["total"], abs=v["abs_tol"])
    several_labels(out.fused.detach(), teachers["a"].said[1])


def several_labels(student: Tensor, teacher: Tensor) -> None:
    p, q = (torch.distributions.Bernoulli(logits=x / 2) for x in (teacher, student))
    want = 4 * torch.distributions.kl_divergence(p, q).mean()
    torch.testing.assert_close(distillation(student, teacher, 2.0, True), want)


def confidences(v: Vector) -> dict[str, float]:
    ctx = context(G2D(), {m: nn.Identity() for m in MODALITIES})
    y = torch.tensor(v["inputs"]["labels"])
    sums: dict[str, Tensor] = {}
    for m in MODALITIES:
        teacher = Given(v["inputs"][f"teacher_logits_{m}"])
        sums[m] = confidence_sum(ctx, teacher, torch.empty(0), y)
    return {m: s.item() / len(y) for m, s in sums.items()}


def phases(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    found = confidences(v)
    for m in MODALITIES:
        assert found[m] == pytest.approx(want[f"confidence_{m}"], abs=v["abs_tol"])
        assert found[m] * len(i["labels"]) == pytest.approx(want[f"score_{m}"], abs=v["abs_tol"])
    phase = h["modulation_ends"] - h["modulation_starts"] + 1
    swapped = dict(zip(MODALITIES, reversed(found.values()), strict=True))

    def mask(confidence: dict[str, float], epoch: int) -> list[int]:
        return [int(m in learning(confidence, epoch + 1, phase)) for m in MODALITIES]

    assert mask(found, i["epochs"][0]) == want["coeff_a_v_epoch0"]
    assert mask(swapped, i["epochs"][1]) == want["swapped_teachers_epoch150"]
    assert mask(found, i["epochs"][2]) == [1, 1]
    strategy = G2D(tau=0.5)
    strategy.confidence = found
    ctx = context(strategy, {m: nn.Identity() for m in MODALITIES}, epochs=4)
    frozen = []
    for epoch in range(1, 5):
        ctx.epoch = epoch
        strategy.on_epoch_start(ctx)
        frozen.append(strategy.state.frozen)
    assert frozen == [{"encoder.a"}, {"encoder.a"}, set(), set()]  # the stronger one stops
    three = {"x": 0.5, "y": 0.2, "z": 0.3}
    turns = [learning(three, epoch, 2) for epoch in range(1, 6)]
    assert turns == [["y"], ["y"], ["z"], ["z"], ["x", "y", "z"]]


def tie(v: Vector) -> None:
    found = confidences(v)
    ours = [int(m in learning(found, 1, 5)) for m in MODALITIES]
    assert ours == v["expected"]["ours"]


ROW = Row(
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    neutral=[
        ({"strategy.w_feature": 0.0, "strategy.w_logit": 0.0, "strategy.tau": 0.0}, "vanilla")
    ],
    golden={"g2d_loss": loss, "g2d_smp": phases, "g2d_tie": tie},
)
