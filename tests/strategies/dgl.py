"""DGL: one step's gradients on the vectors' networks."""

import pytest
import torch
from rows import Row, Vector, context
from tiny_models import (
    MODALITIES,
    batch_of,
    branches,
    close,
    close_gradients,
    concat,
    encoder_and_head,
    encoders_of,
    gradients,
    linear,
)

from miles_repro.fusions.base import Fusion
from miles_repro.fusions.film import FiLM
from miles_repro.fusions.sum import Sum
from miles_repro.strategies.dgl import DGL
from miles_repro.tasks import Multiclass, Multilabel


def dgl(v: Vector) -> None:
    if "W_x" not in v["inputs"]:
        check(v)
        return
    check(v, branches(v["inputs"]), "layers")
    outside = branches(v["inputs"])
    ours = Sum(outside.dims, outside.num_classes, form="separate")
    ours.terms = outside.layers
    check(v, ours, "terms")


def check(v: Vector, fusion: Fusion | None = None, layers: str = "") -> None:
    """fusion: a given sum of branches, its attribute ``layers``."""
    i, h = v["inputs"], v["hyperparameters"]
    names = encoder_and_head(i)
    if fusion is not None:
        for key, m in (("x", "a"), ("y", "v")):
            names |= {f"W_{key}": f"fusion.{layers}.{m}.weight"}
            names |= {f"b_{key}": f"fusion.{layers}.{m}.bias"}
    elif "V" in i:
        fusion = FiLM(dict.fromkeys(MODALITIES, 2), 3)
        fusion.film, fusion.linear = linear(i["V"], i["c"]), linear(i["W_o"], i["b_o"])
        names |= {"V": "fusion.film.weight", "c": "fusion.film.bias"}
        names |= {"W_o": "fusion.linear.weight", "b_o": "fusion.linear.bias"}
    else:
        fusion = concat(i["W_head"], i.get("b_head", [0.0] * 3))
    task = Multilabel(3) if "targets" in i else Multiclass(3)
    strategy = DGL(alpha=h["alpha"], variant="official" if "clip_norm" in h else "paper")
    ctx = context(strategy, encoders_of(i), fusion, task=task, lr=h.get("lr", 0.1))
    batch = batch_of(i, i.get("labels", i.get("targets")))
    with torch.no_grad():
        out = ctx.forward(batch)
        alone = [task.loss(f, batch.y) for f in strategy.unimodal(ctx, out).values()]
        close(task.loss(out.fused, batch.y), v["expected"].get("L_f", v["expected"].get("L_d")), v)
    check_unimodal(alone, v)
    if "grad" in v["expected"]:
        close_gradients(gradients(ctx, batch), v, names)
    else:
        found = gradients(ctx, batch)
        for key in ("W_a", "W_v", "W_head"):
            close(found[names[key]], v["expected"][f"grad_{key}"], v)
    if "next" in v["expected"]:
        again = context(strategy, encoders_of(i), concat(i["W_head"], i["b_head"]), lr=h["lr"])
        strategy.step(again, batch)
        for key, want in v["expected"]["next"].items():
            close(again.model.get_parameter(names[key]).detach(), want, v)


def check_unimodal(losses: list[torch.Tensor], v: Vector) -> None:
    want = v["expected"]
    if "L_uni_sum" in want:
        assert float(sum(losses)) == pytest.approx(want["L_uni_sum"], abs=v["abs_tol"])
        return
    expected = want.get("L_uni") or [want["L_a"], want["L_v"]]
    assert [float(x) for x in losses] == pytest.approx(expected, abs=v["abs_tol"])


ROW = Row(touches=[{"encoder.image", "encoder.audio"}], golden={"dgl": dgl})
