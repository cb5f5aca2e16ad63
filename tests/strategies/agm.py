"""AGM: Shapley parts, coefficients and two steps by numbers."""

import pytest
import torch
from rows import Row, Vector
from tiny_models import batch_of, close, close_weights, trained_context
from torch import nn

from miles_repro.strategies.agm import (
    AGM,
    coefficients,
    evaluating_with_gradient,
    score,
    shares,
    subsets,
)
from miles_repro.tasks import Multiclass, Multilabel


def over_batches(v: Vector) -> None:
    alpha, want = v["hyperparameters"]["alpha"], v["expected"]
    running = torch.zeros(2)
    for t, b in enumerate(v["inputs"]["batches"]):
        outputs = torch.tensor([b["total"], b["zero_visual_out"], b["zero_audio_out"]])
        phi = torch.einsum("ms,sbc->mbc", shares(2), outputs)
        s = torch.stack([score(Multiclass(6), one, torch.tensor(b["labels"])) for one in phi])
        close(coefficients(s, running, alpha), want["coeff_a_v_per_iter"][t], v)
        running = (running * t + s) / (t + 1)
    close(running, [want[f"running_score_{m}"] for m in ("audio", "visual")], v)


def sign(v: Vector) -> None:
    """The modality that is ahead is damped."""
    task, y = Multiclass(6), torch.tensor([0])
    logits = torch.zeros(2, 1, 6)
    logits[:, 0, 0] = torch.tensor([3.0, 0.3])
    s = torch.stack([score(task, one, y) for one in logits])
    want = v["expected"]["official"]
    k = coefficients(s, torch.ones(2), v["hyperparameters"]["alpha"])
    close(k, [want["coeff_audio"], want["coeff_visual"]], v)


def three(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    names = "avt"
    outputs = torch.tensor(
        [i["outputs_by_present_modalities"]["".join(names[m] for m in s)] for s in subsets(3)]
    )
    phi = torch.einsum("ms,sbc->mbc", shares(3), outputs)
    s = torch.stack([score(Multiclass(3), one, torch.tensor(i["y"])) for one in phi])
    running = torch.tensor([i["running_scores"][m] for m in names])
    k = coefficients(s, running, v["hyperparameters"]["alpha"])
    for m, name in enumerate(names):
        close(phi[m], want["phi"][name], v)
        assert s[m].item() == pytest.approx(want["scores"][name], abs=v["abs_tol"])
        assert k[m].item() == pytest.approx(want["coefficients"][name], abs=v["abs_tol"])
    torch.testing.assert_close(phi.sum(0), outputs[0])


def steps(v: Vector) -> None:
    strategy = AGM(alpha=v["hyperparameters"]["alpha"])
    ctx = trained_context(strategy, v)
    want = v["expected"]
    for b, k in zip(v["inputs"]["batches"], want["coefficients_a_v"], strict=True):
        strategy.on_epoch_start(ctx)
        strategy.step(ctx, batch_of(b))
        strategy.on_epoch_end(ctx, {}, {})
        close(list(strategy.log().values()), k, v)
    close(strategy.running, want["running_scores_a_v_after"], v)
    close_weights(ctx.model, v)

    recurrent_layers_can_be_trained_through()


def recurrent_layers_can_be_trained_through() -> None:
    """Every module is in eval mode but these, which have no other without dropout."""
    plain, dropping, norm = nn.GRU(2, 2), nn.GRU(2, 2, 2, dropout=0.1), nn.BatchNorm1d(2)
    model = nn.ModuleList([plain, dropping, norm])
    with evaluating_with_gradient(model):
        assert [m.training for m in model] == [True, False, False]
    assert all(m.training for m in model)


def multilabel(v: Vector) -> None:
    y = torch.tensor(v["inputs"]["y"])
    for m, logits in v["inputs"]["unimodal_logits"].items():
        found = score(Multilabel(3), torch.tensor(logits), y).item()
        assert found == pytest.approx(v["expected"]["bce"][m], abs=v["abs_tol"])


ROW = Row(
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    neutral=[
        ({"strategy.alpha": 0.0, "strategy.clip": None}, "vanilla"),
        ({"strategy.ends": 0.0, "strategy.clip": None}, "vanilla"),
    ],
    learns=False,  # steps are not along the loss: under some fusions three epochs may rise
    golden={
        "agm_0": over_batches,
        "agm_sign": sign,
        "agm_m3": three,
        "agm_step": steps,
        "multilabel": multilabel,
    },
)
