"""Encoders and fusions for features: padding moves nothing, formulas hold, misfits are named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from miles_repro.encoders.check import check_inputs, expected
from miles_repro.encoders.mlp import MLP
from miles_repro.encoders.sequence import GRU, Transformer
from miles_repro.encoders.small import SmallCNN
from miles_repro.encoders.text import Bow
from miles_repro.errors import UserError
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.late import Late
from miles_repro.fusions.lowrank import LowRank
from miles_repro.fusions.transformer import Transformer as TransformerFusion

NAN = float("nan")
DIMS = {"a": 5, "b": 3, "c": 4}
SEQUENCE = {
    "gru": lambda: GRU(3, dim=8, layers=2),
    "transformer": lambda: Transformer(3, dim=8, heads=2),
}


@pytest.mark.parametrize(
    "norm, depth, dropout", [("none", 1, 0), ("batch", 2, 0.5), ("layer", 3, 0)]
)
def test_mlp_layers(norm: str, depth: int, dropout: float) -> None:
    encoder = MLP(12, width=7, depth=depth, dropout=dropout, norm=norm)  # type: ignore[arg-type]
    assert encoder(torch.randn(4, 3, 4)).shape == (4, encoder.dim) == (4, 7)
    linear = [m for m in encoder.modules() if isinstance(m, nn.Linear)]
    assert [m.in_features for m in linear] == [12, 7, 7][:depth]
    assert sum(isinstance(m, nn.Dropout) for m in encoder.modules()) == (depth if dropout else 0)
    norms = {"none": nn.Softmax, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    assert sum(isinstance(m, norms[norm]) for m in encoder.modules()) == (norm != "none") * depth


@pytest.mark.parametrize("bad", [{"depth": 0}, {"dropout": 1.0}, {"norm": "group"}])
def test_an_impossible_mlp_is_refused(bad: dict) -> None:
    with pytest.raises(UserError, match="MLP needs"):
        MLP(3, **bad)


@pytest.fixture(params=SEQUENCE)
def sequence(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return SEQUENCE[request.param]()


def test_a_sequence_s_feature_does_not_depend_on_its_padding(sequence: nn.Module) -> None:
    x = torch.randn(3, 6, 3)
    for row, length in enumerate((2, 6, 4)):
        x[row, length:] = NAN
    longer = torch.cat([x, torch.full((3, 5, 3), NAN)], dim=1)
    together = sequence(x)
    torch.testing.assert_close(sequence(longer), together, rtol=1e-5, atol=1e-6)
    for row, length in enumerate((2, 6, 4)):
        alone = sequence(x[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-6)


def test_padding_gets_and_gives_no_gradient(sequence: nn.Module) -> None:
    x = torch.randn(2, 4, 3)
    grads = []
    for padding in (0, 6):
        sequence.zero_grad()
        sequence(torch.cat([x, torch.full((2, padding, 3), NAN)], dim=1)).square().sum().backward()
        grads.append({k: p.grad.clone() for k, p in sequence.named_parameters()})
    for name, grad in grads[0].items():
        assert grad.abs().sum() > 0 or "in_proj_bias" in name or "self_attn" in name, name
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-4, atol=1e-6)


def test_order_and_every_step_matter(sequence: nn.Module) -> None:
    x = torch.randn(1, 5, 3)
    assert not torch.allclose(sequence(x), sequence(x.flip(1)))
    for step in range(5):
        moved = x.clone()
        moved[0, step] += 1
        assert not torch.allclose(sequence(x), sequence(moved))


def test_a_row_of_padding_is_constant_and_leaves_the_others_alone(sequence: nn.Module) -> None:
    x = torch.randn(2, 4, 3)
    x[1] = NAN
    out = sequence(x)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[0], sequence(x[:1])[0], rtol=1e-5, atol=1e-6)
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in sequence.parameters())


def test_sequence_widths() -> None:
    with pytest.raises(UserError, match="even dim"):
        GRU(3, dim=7)
    with pytest.raises(UserError, match="multiple of its heads"):
        Transformer(3, dim=6, heads=4)


@pytest.mark.parametrize(
    "encoder, shape, wanted",
    [
        (MLP(12), (13,), "expects (12,)"),
        (GRU(3), (5, 4), "expects (steps, 3)"),
        (Transformer(3), (5,), "expects (steps, 3)"),
        (SmallCNN(3), (1, 8, 8), "expects (3, height, width)"),
    ],
)
def test_a_misfit_names_modality_expected_and_given(
    encoder: nn.Module, shape: tuple[int, ...], wanted: str
) -> None:
    with pytest.raises(UserError) as error:
        check_inputs({"sound": encoder}, {"sound": torch.zeros(1, *shape)})
    text = str(error.value)
    assert text.startswith("modality sound: its encoder ")
    assert wanted in text
    assert f"the data have {shape}" in text
    assert "\n" not in text


def test_a_fit_passes_and_changes_nothing() -> None:
    encoder = SmallCNN(3)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    x = {"a": torch.randn(1, 3, 8, 8), "t": torch.ones(1, 4).long()}
    modules = {"a": encoder, "t": Bow(9)}
    state = torch.get_rng_state()
    check_inputs(modules, x)
    assert encoder.training
    assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in before.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert expected(Bow(9)) == "(length,) token ids"


def test_a_wrong_dim_is_named() -> None:
    encoder = MLP(4)
    encoder.dim = 3
    with pytest.raises(UserError, match=r"gives \(128,\).*its dim says \(3,\)"):
        check_inputs({"a": encoder}, {"a": torch.zeros(1, 4)})


# --- fusions --------------------------------------------------------------------------------------


def features(n: int = 6) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {m: torch.randn(n, d) for m, d in DIMS.items()}


@pytest.mark.parametrize("make", [Late, TransformerFusion, LowRank])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_fusion_of_any_number_of_modalities(make: type[Fusion], count: int) -> None:
    dims = dict(list(DIMS.items())[:count])
    fusion = make(dims, 4)
    z = {m: v.requires_grad_() for m, v in features().items() if m in dims}
    fused, alone = fusion(z), fusion.unimodal(z)
    assert fused.shape == (6, 4)
    assert list(alone) == list(dims)
    assert all(v.shape == (6, 4) for v in alone.values())
    (fused.square().sum() + sum(v.square().sum() for v in alone.values())).backward()
    assert all(v.grad.abs().sum() > 0 for v in z.values())
    assert all(torch.isfinite(p.grad).all() for p in fusion.parameters())
    torch.testing.assert_close(fusion({m: v[2:4] for m, v in z.items()}), fused[2:4])


def test_late_is_the_mean_of_its_unimodal_logits() -> None:
    fusion, z = Late(DIMS, 4), features()
    expected = sum(z[m] @ fusion.linear[m].weight.T + fusion.linear[m].bias for m in DIMS) / 3
    torch.testing.assert_close(fusion(z), expected)
    torch.testing.assert_close(sum(fusion.unimodal(z).values()) / 3, fusion(z))


def test_low_rank_is_the_full_multilinear_form() -> None:
    fusion, z = LowRank({"a": 5, "b": 3}, 2, width=4, rank=3), features()
    one = torch.ones(6, 1)
    full = torch.zeros(4, 6, 4)  # the tensor that the factors decompose: (width, d_a + 1, d_b + 1)
    for r in range(3):
        rows = slice(4 * r, 4 * r + 4)
        u, v = (
            torch.cat([fusion.factor[m].weight[rows], fusion.factor[m].bias[rows, None]], dim=1)
            for m in ("a", "b")
        )
        full = full + torch.einsum("ka,kb->kab", u, v)
    a, b = (torch.cat([z[m], one], dim=1) for m in ("a", "b"))
    h = torch.einsum("na,nb,kab->nk", a, b, full)
    torch.testing.assert_close(fusion(z), fusion.linear(h), rtol=1e-4, atol=1e-5)


def test_the_transformer_tells_modalities_apart_and_uses_them_jointly() -> None:
    torch.manual_seed(0)
    fusion = TransformerFusion({"a": 4, "b": 4}, 3)
    x, y = torch.randn(2, 5, 4)
    assert not torch.allclose(fusion({"a": x, "b": y}), fusion({"a": y, "b": x}))
    with pytest.raises(ValueError, match="multiple of heads"):
        TransformerFusion(DIMS, 3, width=10)
