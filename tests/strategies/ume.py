"""UME: both rules of voting, through the models that it loads."""

import pytest
import torch
from rows import Row, Vector, context
from torch import Tensor, nn

from miles_repro.context import Batch, Context, Teacher
from miles_repro.fusions.concat import Concat
from miles_repro.strategies.ume import UME
from miles_repro.tasks import Multiclass, Multilabel, Task


def vote(v: Vector, rule: str, task: Task) -> tuple[Context, Tensor]:
    """The fused logits of two unimodal models that give the vector's logits for row 0, 1, ..."""
    i = v["inputs"]
    given = {m: torch.tensor(i[f"logits_{m}"]) for m in "av"}
    teachers = {}
    for m, logits in given.items():
        encoder = nn.Linear(len(logits), len(logits), bias=False)
        head = nn.Linear(len(logits), 3)
        with torch.no_grad():
            encoder.weight.copy_(torch.eye(len(logits)))
            head.weight.copy_(logits.T)
            head.bias.zero_()
        teachers[m] = Teacher(encoder, head)
    size = len(given["a"])
    encoders: dict[str, nn.Module] = {m: nn.Linear(size, size, bias=False) for m in given}
    heads: dict[str, nn.Module] = {m: nn.Linear(size, 3) for m in given}
    fusion = Concat(dict.fromkeys(given, size), 3)
    ctx = context(UME(rule=rule), encoders, fusion, task=task, heads=heads, teachers=teachers)
    one_hot = torch.eye(size)
    y = torch.tensor(i.get("labels", i.get("targets")))
    out = ctx.forward(Batch(dict.fromkeys(given, one_hot), y, torch.arange(size)))
    found = ctx.logits(out)
    for m, logits in given.items():
        torch.testing.assert_close(found[m], logits)
    return ctx, found["fused"]


def single(v: Vector) -> None:
    want, rule = v["expected"], v["hyperparameters"].get("rule", "prob_mean")
    ctx, fused = vote(v, rule, Multiclass(3))
    values = fused if rule == "logit_mean" else fused.exp()
    assert values.flatten().tolist() == pytest.approx(
        [x for row in want["fused"] for x in row], abs=v["abs_tol"]
    )
    score = ctx.task.score(fused, torch.tensor(v["inputs"]["labels"]))
    assert fused.argmax(1).tolist() == want["prediction"]
    assert score["metric"] == want["accuracy"]
    loss = want["ce"] if rule == "logit_mean" else want["nll"]
    assert score["loss"] == pytest.approx(loss, abs=v["abs_tol"])


def multilabel(v: Vector) -> None:
    want = v["expected"]
    task = Multilabel(3, v["hyperparameters"]["threshold"])
    for rule in ("logit_mean", "prob_mean"):
        ctx, fused = vote(v, rule, task)
        expected = torch.tensor(want[f"prob_{rule}"])
        torch.testing.assert_close(fused.sigmoid(), expected, atol=v["abs_tol"], rtol=0)
        score = ctx.task.score(fused, torch.tensor(v["inputs"]["targets"]))
        assert score["metric"] == pytest.approx(want[f"micro_f1_{rule}"], abs=v["abs_tol"])


ROW = Row(learns=False, golden={"ume_multilabel": multilabel, "ume_": single})
