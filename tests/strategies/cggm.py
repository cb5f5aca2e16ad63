"""CGGM: two real steps with both terms, and the coefficients with and without their guard."""

import pytest
import torch
from rows import Row, Vector, context
from steps import a_batch, a_linear, assert_weights, encoders
from support import saved

from miles_repro.fusions.sum import Sum
from miles_repro.strategies.cggm import CGGM, coefficients


def by_numbers(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    change = torch.tensor(i["acc"]) - torch.tensor(i["prev_acc"])
    found = coefficients(change, guard=False)
    assert found.tolist() == pytest.approx(want["coeff"], abs=v["abs_tol"])
    scale = v["hyperparameters"]["rou"] * found
    assert scale.tolist() == pytest.approx(want["grad_scale"], abs=v["abs_tol"])


def guarded(v: Vector) -> None:
    for case, want in zip(v["inputs"]["cases"], v["expected"]["B"], strict=True):
        change = torch.tensor(case["acc"]) - torch.tensor(case["prev"])
        assert coefficients(change).tolist() == pytest.approx(want, abs=v["abs_tol"])


def step(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    order = i["modality_order"]
    parts, fusion = encoders(i["model"], order), Sum(dict.fromkeys(order, 2), 3)
    fusion.linear = a_linear(i["model"]["shared"])
    strategy = CGGM(
        rho=h["rho"], direction=h["lambda"], classifier_lr=h["classifier_lr"], variant=h["variant"]
    )
    ctx = context(strategy, parts, fusion, lr=h["lr"], clip_norm=h["clip"])
    for m in order:
        strategy.classifiers[m].load_state_dict(a_linear(i["model"][f"aux_{m}"]).state_dict())
    strategy.on_epoch_start(ctx)
    for n, batch in enumerate(i["batches"]):
        strategy.step(ctx, a_batch(batch))
        assert strategy.accuracy.tolist() == pytest.approx(want["accuracy_v_a"][n])
        assert strategy._seen[n].tolist() == pytest.approx(want["B_v_a"][n], abs=1e-5)
        state = saved(strategy.state_dict())
        strategy.setup(ctx)
        strategy.load_state_dict(state)  # the next batch needs all of it
    modules = {
        **{f"encoder_{m}": parts[m] for m in order},
        **{f"aux_{m}": strategy.classifiers[m] for m in order},
        "shared": fusion.linear,
    }
    assert_weights(modules, want["next_weights"], v["abs_tol"])


ROW = Row(
    touches=[{"encoder.image", "encoder.audio"}],
    values={"tiny_three": {"strategy.direction": 0.2}},
    golden={"cggm_step": step, "cggm_guarded": guarded, "cggm_": by_numbers},
)
