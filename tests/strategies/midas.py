"""MIDAS: targets, losses, gradients and the weights' update by numbers."""

from unittest.mock import patch

import pytest
import torch
from rows import Row, Vector, context
from tiny_models import MODALITIES, batch_of, close, concat, encoders_of, gradients, linear

from miles_repro.context import Batch, Context
from miles_repro.strategies import midas
from miles_repro.strategies.midas import MIDAS, Mixed, misaligned_losses, mixed, moved, sources


def label_example(v: Vector) -> None:
    i = v["inputs"]
    confidence = torch.tensor([[i["conf_first_on_own_class"]], [i["conf_second_on_own_class"]]]).T
    z = [torch.ones(1, 1)] * 2
    mix = mixed(z, torch.tensor([0]), confidence, torch.zeros(1, 2, dtype=torch.long))
    close(mix.c[0], v["expected"]["c"], v)
    assert mix.counted.tolist() == [False, False]  # one label only


def a_run(v: Vector) -> tuple[MIDAS, Context, Batch]:
    """The vector's model, with its weights a, after the warm-up."""
    i, h = v["inputs"], v["hyperparameters"]
    strategy = MIDAS(lam=h["lam"], warmup=0.0)
    heads = {m: linear(i[f"uni_{m}_weight"], i[f"uni_{m}_bias"]) for m in MODALITIES}
    ctx = context(strategy, encoders_of(i), concat(i["W_head"], i["b_head"]), heads=heads)
    strategy.on_epoch_start(ctx)
    strategy.alpha = torch.tensor(h["alpha"])
    return strategy, ctx, batch_of(i, i["labels"])


def with_partners(v: Vector):
    """Within, the batch's permutation is the vector's."""
    return patch.object(
        torch, "randperm", lambda n, generator: torch.tensor(v["inputs"]["partner"])
    )


def losses(v: Vector) -> None:
    want = v["expected"]
    strategy, ctx, batch = a_run(v)
    seen: list[tuple[Mixed, torch.Tensor]] = []

    def spy(log_p: torch.Tensor, mix: Mixed, alpha: torch.Tensor) -> torch.Tensor:
        seen.append((mix, misaligned_losses(log_p, mix, alpha)))
        return seen[-1][1]

    with with_partners(v), patch.object(midas, "misaligned_losses", spy):
        loss = strategy.loss(ctx, batch, ctx.forward(batch)).item()
    assert loss == pytest.approx(want["total_both_mean"], abs=v["abs_tol"])
    ((mix, found),) = seen
    assert mix.counted.all()
    for d, rows in ((1, slice(0, 4)), (2, slice(4, 8))):
        close(found[rows].detach(), want[f"L_mis_dir{d}"], v)
        close(mix.similarity[rows], want[f"cos_dir{d}"], v)
        for k, m in enumerate(MODALITIES):
            close(mix.c[rows, k], want[f"c_{m}_dir{d}"], v)
    ctx.epoch, strategy.warmup = 1, 0.1  # the first of ten epochs: unimodal losses alone
    warm = strategy.loss(ctx, batch, ctx.forward(batch)).item()
    assert warm == pytest.approx(want["L_uni"], abs=v["abs_tol"])


def steps(v: Vector) -> None:
    _, ctx, batch = a_run(v)
    with with_partners(v):
        found = gradients(ctx, batch)
    names = {
        **{f"W_{m}": f"encoders.{m}.weight" for m in MODALITIES},
        **{f"uni_{m}_{p}": f"heads.{m}.{p}" for m in MODALITIES for p in ("weight", "bias")},
        "W_head": "fusion.linear.weight",
        "b_head": "fusion.linear.bias",
    }
    assert found.keys() == set(names.values())
    for name, want in v["expected"]["grad"].items():
        close(found[names[name]], want, v)


def update(v: Vector) -> None:
    i, eta = v["inputs"], v["hyperparameters"]["eta"]
    for delta, want in v["expected"].items():
        alpha = torch.ones(2)
        for c, p, after in zip(i["mean_c_a_v"], i["mean_pred_a_v"], want, strict=True):
            assert min(range(2), key=c.__getitem__) == after["weakest"]
            alpha = moved(alpha, torch.tensor(c), torch.tensor(p), eta, delta)
            close(alpha, after["alpha"], v)
    three_modalities()


def three_modalities() -> None:
    """Each direction keeps its own modality and takes the others from their partners."""
    partners = torch.tensor([[1, 2, 0], [2, 0, 1], [0, 1, 2]])
    source = sources(partners)
    for d in range(3):
        rows = source[3 * d : 3 * d + 3]
        assert rows[:, d].tolist() == [0, 1, 2]
        others = [k for k in range(3) if k != d]
        assert torch.equal(rows[:, others], partners[:, others])


ROW = Row(
    needed=("strategy.warmup=0.34",),  # the first of three epochs
    like="vanilla_aux",
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    neutral=[({"strategy.lam": 0.0, "strategy.warmup": 0.0}, "vanilla_aux")],
    learns=False,  # steps are along its own loss too: under some fusions three epochs may rise
    golden={
        "midas_label": label_example,
        "midas_losses": losses,
        "midas_grads": steps,
        "midas_alpha": update,
    },
)
