"""Sample valuation: Shapley values, copies, plans and a masked step by numbers."""

from collections import Counter
from unittest.mock import patch

import pytest
import torch
from rows import Row, Vector
from tiny_models import MODALITIES, batch_of, close, gradients, trained_context
from torch import nn

from miles_repro.context import Batch, Context, Observation
from miles_repro.strategies.sample_valuation import (
    SampleValuation,
    copied,
    copied_share,
    copies,
    valuation,
)

TINY = {
    "encoder_a": {"weight": [[1.0]], "bias": [0.0]},
    "encoder_v": {"weight": [[1.0]], "bias": [0.0]},
    "head": {"weight": [[0.0] * 2] * 3, "bias": [0.0] * 3},
}


def one_sample(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    keys = ("full_correct", "audio_only_correct", "visual_only_correct")
    phi = valuation(torch.tensor([[bool(i[k]) for k in keys]]))
    close(phi[0], [want["contrib_audio"], want["contrib_visual"]], v)
    dropped = [want[f"extra_copies_with_{m}_dropped"] for m in ("visual", "audio")]
    assert copies(phi)[0].tolist() == dropped


def planning(strategy: SampleValuation, phi: torch.Tensor, v: Vector) -> tuple[Context, Counter]:
    """The strategy's order of an epoch for given values: (sample, kept modalities) -> rows."""
    ctx = trained_context(strategy, {**v, "inputs": {"model": TINY}})
    with patch.object(SampleValuation, "_phi", lambda *_: phi):
        (segment,) = strategy.order(ctx, torch.arange(100, 100 + len(phi)))
    assert segment.keep is not None
    names = [
        "+".join(m for m in MODALITIES if segment.keep[m][k]) for k in range(len(segment.rows))
    ]
    return ctx, Counter(zip((segment.rows - 100).tolist(), names, strict=True))


def plan(v: Vector) -> None:
    want = v["expected"]
    phi = valuation(torch.tensor(v["inputs"]["correct_full_a_v"]).bool())
    close(phi, want["contributions"], v)
    samples, alone = copied(copies(phi))
    found = [[int(s), MODALITIES[m]] for s, m in zip(samples, alone, strict=True)]
    assert found == want["rows"][len(phi) :]
    strategy = SampleValuation(warmup=0.0)
    _, rows = planning(strategy, phi, v)
    assert rows == Counter((s, kept) for s, kept in want["rows"])
    assert strategy.log()["rows"] == want["n_rows"] / len(phi)


def modality_level(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    for k, case in enumerate(i["cases"]):
        means = [case["mean_phi_a"], case["mean_phi_v"]]
        p = copied_share(means, case["alpha"], case["func"])
        assert p == pytest.approx(want["p"][k], abs=v["abs_tol"])
        strategy = SampleValuation(
            level="modality", alpha=case["alpha"], func=case["func"], warmup=0.0
        )
        phi = torch.tensor(means, dtype=torch.float64).expand(i["n"], 2)
        _, rows = planning(strategy, phi, v)
        alone = Counter({m: sum(n for (_, kept), n in rows.items() if kept == m) for m in "av"})
        assert +alone == +Counter({want["kept_in_copies"][k] or "a": want["extra_rows"][k]})
        assert sum(n for (_, kept), n in rows.items() if kept == "a+v") == i["n"]


def masked_step(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    strategy = SampleValuation()
    ctx = trained_context(strategy, v)
    whole = batch_of(i["batch"])
    rows = torch.tensor([row for row, _ in i["rows"]])
    keep = {m: torch.tensor([m in kept for _, kept in i["rows"]]) for m in MODALITIES}
    batch = Batch({m: x[rows] for m, x in whole.x.items()}, whole.y[rows], rows, keep)
    out = ctx.forward(batch)
    torch.testing.assert_close(out.fused, torch.tensor(want["logits"]), atol=1e-5, rtol=0)
    assert strategy.loss(ctx, batch, out).item() == pytest.approx(want["loss"], abs=v["abs_tol"])
    found = gradients(ctx, batch)
    for name, gradient in want["grads"].items():
        ours = name.replace("encoder_", "encoders.").replace("head", "fusion.linear")
        close(found[ours], gradient, v)

    valued_without_dropout(ctx, batch)


def valued_without_dropout(ctx: Context, batch: Batch) -> None:
    """Samples are valued while the model is set to train."""
    ctx.model.fusion.linear = nn.Sequential(ctx.model.fusion.linear, nn.Dropout(0.5))
    ctx.model.train()
    seen = Observation(ctx.model.encode(batch.x), {}, batch.y)
    found = seen.masked(ctx, ["v"])
    assert ctx.model.fusion.training
    ctx.model.eval()
    assert torch.equal(found, seen.masked(ctx, ["v"]))


ROW = Row(
    needed=("strategy.warmup=0.0",),
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    neutral=[({"strategy.warmup": 1.0}, "vanilla")],
    learns=False,  # its running loss is over other rows, fewer or more masked, in each epoch
    golden={
        "sample_valuation": one_sample,
        "sv_plan": plan,
        "sv_modality": modality_level,
        "sv_masked": masked_step,
    },
)
