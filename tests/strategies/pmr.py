"""PMR: prototypes, coefficients, losses and steps by numbers."""

import pytest
import torch
from rows import Row, Vector, context
from tiny_models import MODALITIES, batch_of, close, close_weights, concat, trained_context
from torch import nn

from miles_repro.context import Batch
from miles_repro.strategies.pmr import PMR, class_means, coefficients, moved, prototype_terms


def losses(v: Vector) -> None:
    """Identity encoders; the fused logits are the sum of the features."""
    i, want = v["inputs"], v["expected"]
    names = ("audio", "visual")
    y = torch.tensor(i["labels"])
    batch = Batch({m: torch.tensor(i[f"feat_{m}"]) for m in names}, y, torch.arange(len(y)))
    known = torch.ones(2, dtype=torch.bool)
    prototypes = {m: torch.tensor(i[f"proto_{m}"]) for m in names}
    terms = {m: prototype_terms(batch.x[m], y, prototypes[m], known) for m in names}
    for m in names:
        assert terms[m].pce.item() == pytest.approx(want[f"pce_{m}"], abs=v["abs_tol"])
    scores = torch.stack([terms[m].score for m in names])
    assert (scores[0] / scores[1]).item() == pytest.approx(
        want["rho_audio_over_visual"], abs=v["abs_tol"]
    )
    for variant, suffix, total in (
        ("official", "code", "loss_total_code"),
        ("paper", "paper_eq11", "loss_acc_paper_eq10"),
    ):
        w = coefficients(scores, variant)
        close(w, [want[f"beta_{suffix}"], want[f"gamma_{suffix}"]], v)
        strategy = PMR(variant=variant, alpha=v["hyperparameters"]["alpha"], mu=0.0)
        sums = concat(
            [[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]], [0.0, 0.0], dict.fromkeys(names, 2)
        )
        ctx = context(strategy, {m: nn.Identity() for m in names}, sums)
        strategy.prototypes, strategy.known = prototypes, known
        found = strategy.loss(ctx, batch, ctx.forward(batch)).item()
        assert found == pytest.approx(want[total], abs=v["abs_tol"])


def entropy(v: Vector) -> None:
    i = v["inputs"]
    terms = prototype_terms(
        torch.tensor(i["feat"]), torch.arange(2), torch.tensor(i["proto"]), torch.tensor([True] * 2)
    )
    assert terms.entropy.item() == pytest.approx(v["expected"]["H"], abs=v["abs_tol"])


def step(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    strategy = PMR(
        variant=h["variant"], alpha=h["alpha"], mu=h.get("mu", 0.0), regularised=0.1
    )  # the first epoch of ten
    ctx = trained_context(strategy, v)
    strategy.prototypes = {m: torch.tensor(i[f"prototypes_{m}"]) for m in MODALITIES}
    strategy.known = torch.ones(3, dtype=torch.bool)
    batch = batch_of(i["batch"])
    loss = strategy.loss(ctx, batch, ctx.forward(batch)).item()
    assert loss == pytest.approx(want["loss"], abs=v["abs_tol"])
    strategy.step(ctx, batch)
    close_weights(ctx.model, v)
    strategy.on_epoch_end(ctx, {}, {})
    close(list(strategy.log().values()), [want["beta"], want["gamma"]], v)


def prototypes(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    found, known = torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool)
    for epoch in (0, 1):
        seen = i[f"epoch{epoch}"]
        new, present = class_means(torch.tensor(seen["features"]), torch.tensor(seen["labels"]), 3)
        found = moved(found, known, new, present, v["hyperparameters"]["epsilon"])
        known = known | present
        for c, expected in enumerate(want[f"after_epoch{epoch}"]):
            if expected == "absent":
                assert not known[c]
                an_absent_class_is_left_out(found, known, c)
            else:
                close(found[c], expected, v)


def an_absent_class_is_left_out(prototypes: torch.Tensor, known: torch.Tensor, c: int) -> None:
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, c, 0])
    with_it = prototype_terms(z, y, prototypes, known)
    rest = y != c
    others = [k for k in range(len(known)) if k != c]
    without = prototype_terms(z[rest], y[rest], prototypes[others], known[others])
    torch.testing.assert_close(with_it, without)


def zero_distance(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    z = torch.tensor(i["features"], requires_grad=True)
    terms = prototype_terms(
        z, torch.tensor(i["labels"]), torch.tensor(i["prototypes"]), torch.tensor([True] * 2)
    )
    (gradient,) = torch.autograd.grad(terms.pce, z)
    close(gradient, want["gradient_with_zero_at_distance_zero"], v)


ROW = Row(
    needed=("strategy.share=0.5", "strategy.regularised=0.34"),
    touches=[{"encoder.image"}, {"encoder.audio"}],
    neutral=[({"strategy.alpha": 0.0, "strategy.mu": 0.0}, "vanilla")],
    golden={
        "pmr_per": entropy,
        "pmr_step": step,
        "pmr_prototypes": prototypes,
        "pmr_zero": zero_distance,
        "pmr_": losses,
    },
)
