"""What every fusion keeps to, and its closed form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from miles_repro.config import build
from miles_repro.errors import UserError
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.fusions.film import FiLM
from miles_repro.fusions.gated import Gated
from miles_repro.fusions.sum import Sum

KINDS: dict[str, type[Fusion]] = {"concat": Concat, "sum": Sum, "film": FiLM, "gated": Gated}
SUMS = ("concat", "sum", "separate")
widths = st.lists(st.integers(1, 6), min_size=2, max_size=4)


@given(st.sampled_from([*sorted(KINDS), "separate"]), widths, st.integers(2, 5), st.integers(1, 4))
def test_fusions(kind: str, widths: list[int], classes: int, batch: int) -> None:
    fusion_type = KINDS.get(kind, Sum)
    dims = {f"m{i}": d for i, d in enumerate(widths[: fusion_type.max_modalities])}
    torch.manual_seed(sum(widths))
    form = {"form": "separate"} if kind == "separate" else {}
    fusion = fusion_type(dims, classes, **form).double()
    z = {m: torch.randn(batch, d, dtype=torch.float64, requires_grad=True) for m, d in dims.items()}
    fused, unimodal = fusion(z), fusion.unimodal(z)
    assert fused.shape == (batch, classes)
    assert list(unimodal) == list(dims)
    fused.square().sum().backward()
    for m, f in z.items():
        assert unimodal[m].shape == (batch, classes)
        assert f.grad is not None
        assert bool((f.grad != 0).any()), f"no gradient reaches {m}"
        # A modality's own prediction does not look at the others.
        others = {n: g if n == m else torch.randn_like(g) for n, g in z.items()}
        torch.testing.assert_close(fusion.unimodal(others)[m], unimodal[m])
    if kind in SUMS:
        torch.testing.assert_close(torch.stack(list(unimodal.values())).sum(0), fused)
    else:
        zero = {m: torch.zeros_like(f) for m, f in z.items()}
        for m, f in z.items():
            torch.testing.assert_close(unimodal[m], fusion({**zero, m: f}))


@given(widths, st.integers(2, 4))
def test_linear_unimodal_logits_are_their_closed_form(widths: list[int], classes: int) -> None:
    dims = {f"m{i}": d for i, d in enumerate(widths)}
    z = {m: torch.randn(3, d) for m, d in dims.items()}
    concat = Concat(dims, classes)
    start = 0
    for m, d in dims.items():
        block = concat.linear.weight[:, start : start + d]
        expected = z[m] @ block.T + concat.linear.bias / len(dims)
        torch.testing.assert_close(concat.unimodal(z)[m], expected)
        start += d
    summed = Sum(dims, classes)
    assert set(summed.project) == {m for m, d in dims.items() if d != max(widths)}
    for m in dims:
        width = summed.project[m](z[m]) if m in summed.project else z[m]
        expected = width @ summed.linear.weight.T + summed.linear.bias / len(dims)
        torch.testing.assert_close(summed.unimodal(z)[m], expected)


def test_the_separate_sum_is_a_linear_layer_on_the_concatenation() -> None:
    """fc_x(a) + fc_y(v), without a projection, whatever the widths."""
    dims = {"a": 3, "v": 5}
    fusion = Sum(dims, 4, form="separate")
    assert not fusion.project
    same = Concat(dims, 4)
    with torch.no_grad():
        same.linear.weight.copy_(torch.cat([fusion.weight(m) for m in dims], dim=1))
        same.linear.bias.copy_(torch.stack([fusion.terms[m].bias for m in dims]).sum(0))
    z = {m: torch.randn(2, d) for m, d in dims.items()}
    torch.testing.assert_close(fusion(z), same(z))
    with pytest.raises(UserError, match="sum: form=both: shared or separate"):
        build({"name": "sum", "_target_": "miles_repro.fusions.sum.Sum", "form": "both"}, dims, 4)


@pytest.mark.parametrize("kind, option", [("film", "condition"), ("gated", "gate")])
def test_which_modality_conditions(kind: str, option: str) -> None:
    dims = {"a": 3, "b": 5}
    node = {"name": kind, "_target_": f"miles_repro.fusions.{kind}.{KINDS[kind].__name__}"}
    for chosen, other in (("a", "b"), ("b", "a")):
        fusion = build({**node, option: chosen}, dims, 4)
        assert fusion.target == other
        assert fusion({m: torch.randn(2, d) for m, d in dims.items()}).shape == (2, 4)
    assert build(node, dims, 4).target == "b"
    with pytest.raises(UserError, match=rf"{kind}: {option}='c' is not a modality"):
        build({**node, option: "c"}, dims, 4)
