"""Greedy: learning speeds of given gradients and who is held; what a held gate does."""

import pytest
import torch
from rows import Row, Vector, context
from torch import Tensor, nn

from miles_repro.fusions.mmtm import MMTM
from miles_repro.strategies.greedy import Greedy


def weight(values: list[float]) -> nn.Linear:
    layer = nn.Linear(len(values), 1, bias=False)
    layer.weight.data = torch.tensor([values])
    return layer


def bdr(v: Vector) -> None:
    i, h = v["inputs"], v["hyperparameters"]
    given = {k: weight(x) for k, x in i["weights"].items()}
    fusion = MMTM({"0": 1, "1": 1}, 1)
    fusion.squeeze = given["mmtm2.fc_squeeze"]
    fusion.excite["0"], fusion.excite["1"] = given["mmtm2.fc_visual"], given["mmtm2.fc_skeleton"]
    fusion.linear["0"] = fusion.linear["1"] = nn.Identity()
    strategy = Greedy(epsilon=h["epsilon"], window=h["curation_windowsize"], warmup=0.02)
    encoders: dict[str, nn.Module] = {m: given[f"net_view_{m}.w"] for m in "01"}
    ctx = context(strategy, encoders, fusion, epochs=100)
    ctx.epoch = h["starting_epoch"] + 1
    for want in v["expected"]:
        for k, grad in i["grads_alternating"][want["step"] % 2].items():
            given[k].weight.grad = torch.tensor([grad])
        strategy.watch(ctx)
        assert strategy.difference == pytest.approx(want["d_BDR"], abs=v["abs_tol"])
        assert bool(strategy.held) == want["curation_mode"]
        assert strategy.held in ("", str(want["caring_modality"]))
    held_gate()


def held_gate() -> None:
    """Of a held modality the gate is the mean of the batches so far, in training alone."""
    torch.manual_seed(0)
    fusion = MMTM({"a": 3, "b": 2}, 4)
    strategy = Greedy()
    fusion.regate = strategy.regate
    batches = [{"a": torch.randn(5, 3), "b": torch.randn(5, 2)} for _ in range(3)]
    for z in batches[:2]:
        fusion(z)
    strategy.held = "b"
    found = fusion(batches[2])
    mean = torch.cat([fusion.gates(z)["b"] for z in batches]).mean(0)

    def fused(gate_b: Tensor) -> Tensor:
        a = fusion.linear["a"](fusion.gates(batches[2])["a"] * batches[2]["a"])
        return (a + fusion.linear["b"](gate_b * batches[2]["b"])) / 2

    torch.testing.assert_close(found, fused(mean))
    torch.testing.assert_close(fusion.eval()(batches[2]), fused(fusion.gates(batches[2])["b"]))


ROW = Row(
    needed=("strategy.epsilon=0.0",),
    neutral=[({"strategy.epsilon": 1e9}, "vanilla")],
    golden={"greedy_bdr": bdr},
)
