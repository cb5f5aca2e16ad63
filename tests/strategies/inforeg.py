"""InfoReg: strengths, windows, and two steps of an epoch in both variants."""

import pytest
import torch
from rows import Row, Vector
from tiny_models import MODALITIES, batch_of, close, close_weights, trained_context

from miles_repro.strategies.inforeg import (
    OFFICIAL_GROWTH,
    InfoReg,
    gaps,
    growth,
    official_growth,
    official_strengths,
    strengths,
)


def one_gap(v: Vector) -> None:
    want = v["expected"]
    gap = torch.tensor([v["inputs"]["performance_gap"]] * 2)
    alpha = strengths(gap, v["hyperparameters"]["beta"])
    assert alpha.tolist() == pytest.approx([want["alpha_paper_eq16"]] * 2, abs=v["abs_tol"])
    released = [want["grad_coefficient_code_audio"], want["grad_coefficient_code_visual"]]
    assert official_strengths(gap).tolist() == pytest.approx(released, abs=v["abs_tol"])


def alphas(v: Vector) -> None:
    want = v["expected"]
    for scores, gap, alpha in zip(v["inputs"]["scores"], want["gap"], want["alpha"], strict=True):
        found = gaps(torch.tensor(scores))
        close(found, gap, v)
        close(strengths(found, v["hyperparameters"]["beta"]), alpha, v)


def window(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    for t, (value, official) in enumerate(
        zip(want["paper_value"], want["official_value"], strict=True)
    ):
        traces = i["trace_per_epoch"][:t]
        found = growth(traces)
        assert found is None if value is None else found == pytest.approx(value, abs=v["abs_tol"])
        assert official_growth(traces) == pytest.approx(official, abs=v["abs_tol"])
        open_now = official_growth(traces) > OFFICIAL_GROWTH
        assert open_now == want["official_regulated"][t]
        strategy = InfoReg(threshold=h["K_paper"])
        strategy.traces = {"a": traces, "v": []}
        ctx = trained_context(strategy, STEPS)
        assert strategy.regulated(ctx) == (["a"] if want["paper_regulated"][t] else [])


STEPS: Vector = {
    "inputs": {
        "model": {
            k: {"weight": [[1.0, 0.0], [0.0, 1.0]], "bias": [0.0, 0.0]}
            for k in ("encoder_a", "encoder_v")
        }
        | {"head": {"weight": [[0.0] * 4] * 3, "bias": [0.0] * 3}}
    },
    "hyperparameters": {},
}


def steps(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    official = h["variant"] == "official"
    strategy = InfoReg(beta=h.get("beta", 0.9), variant=h["variant"])
    ctx = trained_context(strategy, v)
    if official:
        strategy.traces = {m: list(i["trace_a_of_previous_epochs"]) for m in MODALITIES}
        assert official_growth(strategy.traces["a"]) == want["window_value"]
    else:
        strategy.traces = {m: [1.0, 2.0] for m in MODALITIES}
    assert strategy.regulated(ctx) == ["a", "v"]
    strategy.on_epoch_start(ctx)
    for one in i["batches"]:
        strategy.step(ctx, batch_of(one))
    close_weights(ctx.model, v)
    coefficients = torch.stack(strategy._alphas)
    expected = want["coefficients_a_v" if official else "alpha"]
    torch.testing.assert_close(coefficients, torch.tensor(expected), atol=1e-5, rtol=0)
    strategy.on_epoch_end(ctx, {}, {})
    if official:
        traces = [strategy.traces[m][-1] for m in MODALITIES]
        assert traces == pytest.approx([want["trace_a"], want["trace_v"]], abs=1e-5)


ROW = Row(
    needed=("strategy.threshold=-100.0",),
    touches=[set()],
    neutral=[
        ({"strategy.threshold": 1.0}, "vanilla"),
    ],
    golden={
        "inforeg_step": steps,
        "inforeg_window": window,
        "inforeg_alpha": alphas,
        "inforeg_": one_gap,
    },
)
