"""Data Remixing: divergences, subsets and steps by numbers."""

import pytest
import torch
from rows import Row, Vector
from tiny_models import MODALITIES, batch_of, close, close_weights, trained_context

from miles_repro.context import Batch, Context, Observation
from miles_repro.strategies.data_remixing import DataRemixing, assignment, decidedness
from miles_repro.tasks import Multiclass, Multilabel


def divergences(v: Vector) -> None:
    p = torch.tensor(v["inputs"]["probs"])
    close(decidedness(Multiclass(6), p.log()), v["expected"]["kl_to_uniform_log2"], v)


def subsets(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    logits = {m: torch.tensor(i[f"logits_{m}"]) for m in MODALITIES}
    for m in MODALITIES:
        close(decidedness(Multiclass(3), logits[m]), want[f"kl_{m}"], v)
    kept = assignment(torch.tensor([want["kl_a"], want["kl_v"]]).T)
    for k, m in enumerate(MODALITIES):
        assert (kept == k).nonzero().flatten().tolist() == want[f"subset_{m}"]
    assert assignment(torch.zeros(1, 2)).tolist() == [1]


def multilabel(v: Vector) -> None:
    i, want = v["inputs"]["unimodal_logits"], v["expected"]
    kl = {m: decidedness(Multilabel(3), torch.tensor(i[m])) for m in MODALITIES}
    for m in MODALITIES:
        close(kl[m], want["kl_half_log2"][m], v)
    kept = assignment(torch.stack([kl[m] for m in MODALITIES], dim=1))
    assert [MODALITIES[k] for k in kept] == want["remix_kept"]


def warmup(v: Vector) -> None:
    strategy = DataRemixing(weight=v["hyperparameters"]["alpha"])
    ctx = trained_context(strategy, v)
    batch = batch_of(v["inputs"]["batch"])
    loss = strategy.loss(ctx, batch, ctx.forward(batch)).item()
    assert loss == pytest.approx(v["expected"]["loss"], abs=v["abs_tol"])
    strategy.step(ctx, batch)
    close_weights(ctx.model, v)


def epoch(v: Vector) -> None:
    """The official order, v before a; without momentum both variants take the same steps."""
    i = v["inputs"]
    undecided = {m: torch.ones(4, 3) for m in MODALITIES}  # for 1 and 3 a, for 0 and 2 v
    for m, other in (("a", "v"), ("v", "a")):
        undecided[other][i[f"subset_{m}_rows"], 0] = 9.0
    for variant in ("official", "paper"):
        strategy = DataRemixing(variant=variant, gamma=v["hyperparameters"]["gamma"], warmup=0.0)
        ctx = trained_context(strategy, v)
        ctx.observe = lambda split, rows: Observation({}, undecided, rows)  # type: ignore
        segments = strategy.order(ctx, torch.arange(4))
        assert [s.name for s in segments] == (["v", "a"] if variant == "official" else ["a", "v"])
        losses = []
        for segment in sorted(segments, key=lambda s: s.name, reverse=True):
            assert sorted(segment.rows.tolist()) == i[f"subset_{segment.name}_rows"]
            batch = a_batch(v, segment.rows, segment.keep, segment.name)
            losses.append(strategy.loss(ctx, batch, ctx.forward(batch)).item())
            strategy.step(ctx, batch)
        assert sum(losses) / 2 == pytest.approx(v["expected"]["mean_loss"], abs=v["abs_tol"])
        close_weights(ctx.model, v)
    what_is_not_kept_stays(v)


def a_batch(v: Vector, rows: torch.Tensor, keep: dict[str, torch.Tensor], name: str) -> Batch:
    whole = batch_of(v["inputs"]["batch"])
    return Batch({m: x[rows] for m, x in whole.x.items()}, whole.y[rows], rows, keep, name)


def what_is_not_kept_stays(v: Vector) -> None:
    """Under Adam, after a step with moments; in the official variant the encoder moves on."""
    for variant in ("paper", "official"):
        strategy = DataRemixing(variant=variant, warmup=0.0)
        ctx: Context = trained_context(
            strategy, v, optimizer=lambda groups: torch.optim.Adam(groups, lr=0.01)
        )
        strategy.step(ctx, batch_of(v["inputs"]["batch"]))
        before = {k: p.detach().clone() for k, p in ctx.model.named_parameters()}
        keep = {"a": torch.zeros(4).bool(), "v": torch.ones(4).bool()}
        strategy.step(ctx, a_batch(v, torch.arange(4), keep, "v"))
        moved = {k for k, p in ctx.model.named_parameters() if not torch.equal(p, before[k])}
        assert any(k.startswith("encoders.a.") for k in moved) == (variant == "official")
        assert not any(k.startswith("heads.a.") for k in moved)
        assert {"encoders.v.weight", "heads.v.weight", "fusion.linear.weight"} < moved


ROW = Row(
    needed=("strategy.warmup=0.0",),
    like="vanilla_aux",
    touches=[{"encoder.image", "head.image", "encoder.audio", "head.audio", "fusion"}],
    neutral=[({"strategy.warmup": 1.0, "strategy.weight": 1.0}, "vanilla_aux")],
    learns=False,  # its running loss is over other rows' masked features in each epoch
    golden={
        "remix_assignment": subsets,
        "remix_warmup": warmup,
        "remix_epoch": epoch,
        "remix": divergences,
        "multilabel": multilabel,
    },
)
