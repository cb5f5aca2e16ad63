"""AUG: heads, loss and a real batch of turns with a grown head; who gets a head, and when."""

import pytest
import torch
from rows import Row, Vector, context
from steps import a_batch, a_linear, assert_weights
from torch import nn

from miles_repro.context import Batch, Context
from miles_repro.fusions.late import Late
from miles_repro.strategies.aug import AUG, Boosted, boosting_loss, weaker


def setting(v: Vector) -> tuple[AUG, Context, dict[str, nn.Module], Batch]:
    """The vector's model, its video with as many added heads as it names."""
    i, h = v["inputs"], v["hyperparameters"]
    strategy = AUG(lam=h.get("lam", 0.5), width=2)
    modules: dict[str, nn.Module] = {f"W_{m}": a_linear({"weight": i[f"W_{m}"]}) for m in "av"}
    ctx = context(
        strategy,
        {m: modules[f"W_{m}"] for m in "av"},
        Late(dict.fromkeys("av", 2), 3),
        optimizer=lambda groups: torch.optim.SGD(
            groups, lr=0.1, momentum=h.get("momentum", 0), weight_decay=h.get("weight_decay", 0)
        ),
    )
    strategy.on_epoch_start(ctx)
    names = {"emb_a": "boost.a.0", "emb_v": "boost.v.0", "shared": "fusion"}
    for n in (1, 2):
        if f"added_{n}_weight" in i:
            strategy.grow(ctx, "v")
            names[f"added_{n}"] = f"boost.v.{n}"
    for name, group in names.items():
        part = ctx.model.parts()[group]
        modules[name] = part.shared if isinstance(part, Boosted) else part
        given = {k: i[f"{name}_{k}"] for k in ("weight", "bias")}
        modules[name].load_state_dict(a_linear(given).state_dict())
    return strategy, ctx, modules, a_batch({**i, "y": i["labels"]})


def keyed(want: Vector) -> Vector:
    """The vectors' names as ours: ``W_a`` and ``emb_a_weight`` -> ``<module>.<parameter>``."""
    return {
        f"{k}.weight" if k.startswith("W_") else ".".join(k.rsplit("_", 1)): x
        for k, x in want.items()
    }


def outputs(v: Vector) -> None:
    _, ctx, _, batch = setting(v)
    found = ctx.model.fusion.outputs("v", ctx.model.encode(batch.x)["v"])  # type: ignore[operator]
    parts = {"logits": found.sum(0), "previous": found[:-1].sum(0), "last": found[-1]}
    for k, want in v["expected"].items():
        torch.testing.assert_close(parts[k], torch.tensor(want), atol=v["abs_tol"], rtol=0)
    out = ctx.forward(batch)
    torch.testing.assert_close(out.unimodal["v"], found.sum(0))
    torch.testing.assert_close(out.fused, (out.unimodal["a"] + out.unimodal["v"]) / 2)


def loss(v: Vector) -> None:
    strategy, ctx, modules, batch = setting(v)
    found = ctx.model.fusion.outputs("v", ctx.model.encode(batch.x)["v"])  # type: ignore[operator]
    value = boosting_loss(found, batch.y, strategy.lam)
    assert float(value.detach()) == pytest.approx(v["expected"]["loss"], abs=v["abs_tol"])
    value.backward()
    grads = {f"{n}.{k}": p.grad for n, x in modules.items() for k, p in x.named_parameters()}
    for key, want in keyed(v["expected"]["grad"]).items():
        torch.testing.assert_close(grads[key], torch.tensor(want), atol=v["abs_tol"], rtol=0)


def batch_step(v: Vector) -> None:
    strategy, ctx, modules, batch = setting(v)
    strategy.step(ctx, batch)
    assert_weights(modules, keyed(v["expected"]["next"]), v["abs_tol"])


def assignment(v: Vector) -> None:
    h, want = v["hyperparameters"], v["expected"]
    cases = [dict(zip("av", case, strict=True)) for case in v["inputs"]["score_a_v"]]
    assert [weaker(case, h["tau"]) for case in cases] == want["add_head_to_paper"]
    assert [weaker(case, h["dead_zone"], "ratio") for case in cases] == want["add_head_to_code"]
    checked = [e for e in range(200) if AUG().checks(e + 1, 200)]
    assert checked == want["epochs_checked_of_200"]


ROW = Row(
    needed=("strategy.tau=0.0", "strategy.width=8"),
    golden={
        "aug_head_outputs": outputs,
        "aug_loss": loss,
        "aug_batch_step": batch_step,
        "aug_assignment": assignment,
    },
)
