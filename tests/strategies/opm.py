"""OPM: rates, dropping and a step by numbers; a batch that loses everything."""

from unittest.mock import patch

import pytest
import torch
from rows import Row, Vector
from tiny_models import MODALITIES, batch_of, close, gradients, trained_context

from miles_repro.strategies import opm
from miles_repro.strategies.opm import OPM, drop_rates, feature_scale, masked


def rates(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    q = drop_rates(torch.tensor([i["perf_1"], i["perf_2"]]), h["q_base"], h["lam"])
    close(q, want["q"], v)
    assert float(feature_scale(torch.ones(2), q)) == pytest.approx(
        want["feature_scale"], abs=v["abs_tol"]
    )


def rates_of_three(v: Vector) -> None:
    h = v["hyperparameters"]
    for scores, q in zip(v["inputs"]["scores"], v["expected"]["q"], strict=True):
        close(drop_rates(torch.tensor(scores), h["q_base"], h["lam"]), q, v)


def dropping(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    keep = torch.tensor(i["keep_mask"]).bool()
    assert keep.any(dim=1).nonzero().flatten().tolist() == want["kept_rows"]
    scale = feature_scale(torch.full((2,), 2.0), torch.tensor(i["q"]))
    for m, f in masked({m: torch.tensor(i[f"features_{m}"]) for m in MODALITIES}, keep).items():
        close(f * scale, want[f"features_{m}_out"], v)


def step(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    strategy = OPM(q_base=h["q_base"], lam=h["lam"], p_exe=1.0, warmup=0.0)
    ctx = trained_context(strategy, v)
    batch = batch_of(i["batch"])
    strategy.on_epoch_start(ctx)
    with patch.object(opm, "kept", lambda n, q, generator: torch.tensor(i["keep_mask"]).bool()):
        out = ctx.forward(batch)
        assert strategy.loss(ctx, batch, out).item() == pytest.approx(
            want["loss"], abs=v["abs_tol"]
        )
        found = gradients(ctx, batch)
    for name, gradient in want["grads"].items():
        ours = name.replace("encoder_", "encoders.").replace("head", "fusion.linear")
        close(found[ours], gradient, v)
    strategy.on_epoch_end(ctx, {}, {})
    close(list(strategy.log().values()), want["q"], v)
    nothing_left(v)


def nothing_left(v: Vector) -> None:
    """No sample left: no step, not even by momentum or weight decay; fp16 scaling stands it."""
    strategy = OPM(p_exe=1.0, warmup=0.0)
    ctx = trained_context(
        strategy,
        v,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.1),
    )
    ctx.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    batch = batch_of(v["inputs"]["batch"])
    strategy.step(ctx, batch)
    before = [p.detach().clone() for p in ctx.model.parameters()]
    with patch.object(opm, "kept", lambda n, q, generator: torch.zeros(n, len(q)).bool()):
        strategy.step(ctx, batch)
    assert all(map(torch.equal, before, ctx.model.parameters()))
    strategy.step(ctx, batch)
    assert not any(map(torch.equal, before, ctx.model.parameters()))


ROW = Row(
    needed=("strategy.p_exe=1.0",),
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    neutral=[({"strategy.p_exe": 0.0}, "vanilla"), ({"strategy.warmup": 1.0}, "vanilla")],
    learns=False,  # its running loss is of what dropping leaves
    golden={"opm_q_m3": rates_of_three, "opm_drop": dropping, "opm_step": step, "opm_": rates},
)
