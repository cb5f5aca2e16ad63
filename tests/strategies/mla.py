"""MLA: entropies, weights, projection and steps by numbers."""

import torch
from rows import Row, Vector, context
from tiny_models import MODALITIES, batch_of, close, concat, linear

from miles_repro.context import Context
from miles_repro.model import Output
from miles_repro.strategies.mla import MLA, entropy, recursive_projection, weighted
from miles_repro.tasks import Multiclass, Multilabel


def weights(v: Vector) -> None:
    want = v["expected"]["paper_per_sample"]
    logits = torch.tensor([v["inputs"][f"logits_{m}"] for m in MODALITIES])
    e = entropy(Multiclass(3), logits)
    close(e, [want[f"entropy_{m}"] for m in MODALITIES], v)
    close((-e).softmax(0), [want[f"w_{m}"] for m in MODALITIES], v)


def prediction(v: Vector) -> None:
    want, logits = v["expected"], torch.tensor(v["inputs"]["unimodal_logits"])
    close(entropy(Multiclass(3), logits), want["entropy"], v)
    close(weighted(Multiclass(3), logits), want["fused_logits"], v)
    ctx = a_context(MLA(), v)
    out = Output({}, logits.mean(0), lambda features: dict(zip(MODALITIES, logits, strict=True)))
    found = ctx.hooks.predict(ctx, out)
    close(found, want["fused_logits"], v)
    assert found.argmax(1).tolist() == want["prediction"]
    for row in range(len(found)):  # the batch's composition does not matter
        torch.testing.assert_close(weighted(Multiclass(3), logits[:, [row]])[0], found[row])


def multilabel(v: Vector) -> None:
    logits = torch.tensor([v["inputs"]["unimodal_logits"][m] for m in MODALITIES])
    e = entropy(Multilabel(3), logits)
    close(e, [v["expected"]["entropy"][m] for m in MODALITIES], v)
    close((-e).softmax(0), [v["expected"]["mla_weights"][m] for m in MODALITIES], v)


def projection(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    gradient = torch.tensor(i["head_weight_grad"])
    p = torch.eye(3)
    for t, h in enumerate(i["mean_features_per_step"]):
        if t:
            p = recursive_projection(p, torch.tensor(h), v["hyperparameters"]["alpha_per_step"][t])
        close(p, want["P"][t], v)
        close(gradient @ p.T, want["projected_grad"][t], v)


def a_context(strategy: MLA, v: Vector) -> Context:
    """The vector's model, where it has one, under SGD."""
    model = v["inputs"].get("model")
    layers = {k: linear(p["weight"], p["bias"]) for k, p in (model or {}).items()}
    h = v["hyperparameters"]
    ctx = context(
        strategy,
        {m: layers.get(f"encoder_{m}", torch.nn.Identity()) for m in MODALITIES},
        concat([[0.0] * 4] * 3, [0.0] * 3),
        optimizer=lambda groups: torch.optim.SGD(
            groups,
            lr=h.get("lr", 0.1),
            momentum=h.get("momentum", 0.0),
            weight_decay=h.get("weight_decay", 0.0),
        ),
    )
    if model:
        ctx.model.fusion.linear.load_state_dict(layers["shared"].state_dict())
    return ctx


def steps(v: Vector) -> None:
    paper = v["hyperparameters"]["variant"] == "paper"
    strategy = MLA(projection="current" if paper else "none")
    ctx = a_context(strategy, v)
    twice = "batches" in v["inputs"]
    ctx.rows = torch.arange(2 * ctx.recipe.batch_size if twice else 1)
    strategy.on_epoch_start(ctx)
    for _ in range(2 if twice else 1):
        strategy.step(ctx, batch_of(v["inputs"]["batch"]))
    found = {
        **{f"encoder_{m}": ctx.model.encoders[m] for m in MODALITIES},
        "shared": ctx.model.fusion.linear,
    }
    for name, want in v["expected"]["next_weights"].items():
        part, parameter = name.split(".")
        close(getattr(found[part], parameter).detach(), want, v)
    if paper:
        close(strategy.projector, v["expected"]["P"], v)


ROW = Row(
    needed=("strategy.projection=current",),
    golden={
        "mla_fusion": weights,
        "mla_step": steps,
        "mla_rls": projection,
        "mla_predict": prediction,
        "multilabel": multilabel,
    },
)
