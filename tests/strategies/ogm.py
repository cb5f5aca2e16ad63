"""OGM: gradients after the strategy's backward, beside those of the loss alone; the Adam trap."""

import pytest
import torch
from rows import Row, Vector, context
from torch import nn

from miles_repro import MILES
from miles_repro.context import Batch
from miles_repro.fusions.concat import Concat
from miles_repro.strategies.ogm import OGM, coefficients, discrepancy_ratio
from miles_repro.strategies.vanilla import Vanilla
from miles_repro.strategy import Strategy


def ogm(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    inputs = {"audio": torch.tensor(i["logits_audio"]), "visual": torch.tensor(i["logits_visual"])}
    batch = Batch(inputs, torch.tensor(i["labels"]), torch.arange(len(i["labels"])))

    def gradients(strategy: Strategy) -> dict[str, torch.Tensor]:
        encoders = {m: nn.Linear(3, 3, bias=False) for m in inputs}
        fusion = Concat(dict.fromkeys(inputs, 3), 3)
        with torch.no_grad():
            for encoder in encoders.values():
                encoder.weight.copy_(torch.eye(3))
            fusion.linear.weight.copy_(torch.cat([torch.eye(3)] * 2, dim=1))
            fusion.linear.bias.copy_(torch.tensor(i["fc_out_bias"]))
        ctx = context(strategy, encoders, fusion)
        strategy.on_epoch_start(ctx)
        out = ctx.forward(batch)
        strategy.backward(ctx, batch, out, strategy.loss(ctx, batch, out))
        strategy.on_epoch_end(ctx, {}, {})
        logged = {k: round(x, 5) for k, x in strategy.log().items()}
        coefficients = {"k_audio": want["coeff_a"], "k_visual": want["coeff_v"]}
        modulating = isinstance(strategy, OGM)
        assert logged == ({k: round(x, 5) for k, x in coefficients.items()} if modulating else {})
        return {k: p.grad for k, p in ctx.model.named_parameters() if p.grad is not None}

    raw = gradients(Vanilla())
    alpha = v["hyperparameters"]["alpha"]
    found = gradients(OGM(alpha=alpha, ends=1.0, params="all", multilabel_score="all"))
    for part, key in (
        ("encoders.audio.weight", "scale_audio_grad"),
        ("encoders.visual.weight", "scale_visual_grad"),
        ("fusion.linear.weight", "scale_head_grad"),
        ("fusion.linear.bias", "scale_head_grad"),
    ):
        scale = float(found[part].norm() / raw[part].norm())
        assert scale == pytest.approx(want[key], abs=v["abs_tol"])
        torch.testing.assert_close(found[part], raw[part] * scale)


def ogm_multi(v: Vector) -> None:
    sums = torch.tensor(v["inputs"]["score_sums"])
    want = v["expected"]
    assert discrepancy_ratio(sums).tolist() == pytest.approx(want["rho"], abs=v["abs_tol"])
    k = coefficients(sums, v["hyperparameters"]["alpha"])
    assert k.tolist() == pytest.approx(want["k"], abs=v["abs_tol"])


def adam_trap(v: Vector) -> None:
    """Halving a gradient is nothing to Adam; halving the rate through our scheduler is not."""
    want = v["expected"]

    def trained(kind: type[torch.optim.Optimizer], grad: float, mu: float) -> list[float]:
        p, other = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
        optimizer = kind([{"params": [p]}, {"params": [other]}], lr=0.1)  # type: ignore[call-arg]
        scheduler = MILES(optimizer, {"A": [p], "B": [other]}, tau=0.0, mu=mu)
        scheduler.step(fused=0.9, A=0.8, B=0.1)
        for t in range(5):
            p.grad = torch.tensor([0.3, -0.1]) * (1 + 0.5 * t) * grad
            optimizer.step()
        return p.tolist()

    for name, kind in (("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)):
        for suffix, grad, mu in (("base", 1, 1), ("grad_x0p5", 0.5, 1), ("lr_x0p5", 1, 0.5)):
            found = trained(kind, grad, mu)
            assert found == pytest.approx(want[f"{name}_{suffix}"], abs=v["abs_tol"])


ROW = Row(
    needed=("strategy.ends=1.0",),
    touches=[{"encoder.image"}, {"encoder.audio"}],
    neutral=[({"strategy.alpha": 0.0}, "vanilla"), ({"strategy.ends": 0.0}, "vanilla")],
    golden={"ogm_multi": ogm_multi, "ogm_": ogm, "adam_scale": adam_trap},
)
