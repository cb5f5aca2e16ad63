"""TCMax: the loss in its three forms, its gradients, and its level of no knowledge."""

from typing import ClassVar

import pytest
import torch
from rows import Row, Vector, context
from tiny_models import branches, close, concat
from torch import Tensor, nn

from miles_repro.context import Batch, Context
from miles_repro.fusions.base import Fusion
from miles_repro.strategies.tcmax import TCMax, additive_total_correlation, total_correlation


class Drawn(TCMax):
    """Combinations as a vector gives them."""

    given: ClassVar[list[list[int]]] = []

    def combinations(self, ctx: Context, size: int) -> Tensor:
        return torch.tensor(self.given)


class OneByOne(TCMax):
    """All combinations run through the fusion, although it is additive."""

    def _additive(self, ctx: Context) -> bool:
        return False


def loss_of(v: Vector, strategy: TCMax, fusion: Fusion) -> tuple[Tensor, dict[str, Tensor], Fusion]:
    i = v["inputs"]
    z = {m: torch.tensor(i[f"z_{m}"], requires_grad=True) for m in "av"}
    ctx = context(strategy, {m: nn.Identity() for m in z}, fusion)
    batch = Batch(dict(z), torch.tensor(i["labels"]), torch.arange(len(i["labels"])))
    return strategy.loss(ctx, batch, ctx.forward(batch)), z, ctx.model.fusion


def tcmax(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    if "W_x" in i:
        Drawn.given = [i["neg_index_a"], i["neg_index_v"]]
        strategy = Drawn(negatives=v["hyperparameters"]["n_negatives"])
        loss, z, fusion = loss_of(v, strategy, branches(i))
        names = {"W_x": "layers.a.weight", "b_x": "layers.a.bias"}
        names |= {"W_y": "layers.v.weight", "b_y": "layers.v.bias"}
    else:
        loss, z, fusion = loss_of(v, TCMax(), concat(i["W_head"], i["b_head"]))
        names = {"W_head": "linear.weight", "b_head": "linear.bias"}
        widely, _, _ = loss_of(v, OneByOne(), concat(i["W_head"], i["b_head"]))
        assert widely.item() == pytest.approx(want["loss_paper"], abs=v["abs_tol"])
    assert loss.item() == pytest.approx(want["loss_paper"], abs=v["abs_tol"])
    loss.backward()
    for key, value in want.get("grad", {}).items():
        found = z[key[2:]].grad if key.startswith("z_") else fusion.get_parameter(names[key]).grad
        assert found is not None
        close(found, value, v)


def no_knowledge(v: Vector) -> None:
    size, classes = v["inputs"]["B"], v["inputs"]["C"]
    zero, y = torch.zeros(size, classes), torch.arange(size) % classes
    for loss in (
        total_correlation(zero, y, torch.zeros(size * size, classes)),
        additive_total_correlation(zero, y, [zero, zero]),
    ):
        assert loss.item() == pytest.approx(v["expected"]["loss_paper"], abs=v["abs_tol"])


ROW = Row(
    touches=[{"encoder.image", "encoder.audio", "fusion"}],
    golden={"tcmax_uniform": no_knowledge, "tcmax_": tcmax},
)
