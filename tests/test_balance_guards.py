"""Strategies in a foreign loop: what would go wrong in silence is refused or left alone."""

from __future__ import annotations

import copy

import pytest
import torch
from balance_kit import DIMS, groups, parts
from torch import nn

from miles_repro import balance
from miles_repro.fusions.sum import Sum

Y = torch.tensor([0, 1, 2])


def inputs() -> dict[str, torch.Tensor]:
    return {m: torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) for m in DIMS}


def test_what_is_missing_is_one_clear_line() -> None:
    encoders, fusion, heads = parts()
    every = groups(*encoders.values(), fusion, *heads.values())
    dims = {"image": 8, "audio": 8}
    cases = [
        (lambda: balance.Miles(every, encoders, fusion, epochs=3, dims=dims), "pass heads="),
        (lambda: balance.OGM(every, encoders, fusion, epochs=3), "dims={'image'"),
        (
            lambda: balance.OGM(groups(*encoders.values()), encoders, fusion, epochs=3, dims=dims),
            "holds no parameters of fusion",
        ),
        (
            lambda: balance.OGM(
                torch.optim.SGD([p for m in (*encoders.values(), fusion) for p in m.parameters()]),
                encoders,
                fusion,
                epochs=3,
                dims=dims,
            ),
            "parameter groups of its own",
        ),
        (lambda: balance.OGM(every, encoders, nn.ReLU(), epochs=3), "fusion: give a Fusion"),
        (lambda: balance.Miles(every, encoders, fusion, heads, epochs=3, tau=-1), "tau=-1"),
    ]
    for make, words in cases:
        with pytest.raises(ValueError) as error:  # noqa: PT011 - the words differ
            make()
        assert words in str(error.value), error.value
    with pytest.raises(AttributeError, match="no attribute 'Magic'"):
        balance.Magic
    b = balance.OGM(every, encoders, fusion, epochs=3, dims=dims)
    with pytest.raises(ValueError, match="OGM looks at the train split: pass data="):
        b.ctx.observe("train")


def test_what_the_user_froze_stays_frozen() -> None:
    encoders, fusion, heads = parts()
    first = encoders["image"][0]
    assert isinstance(first, nn.Linear)
    first.requires_grad_(False)
    encoders["audio"] = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).requires_grad_(False)
    encoders["audio"].eval()
    before = first.weight.clone(), encoders["audio"][1].running_mean.clone()  # type: ignore[union-attr]
    trained = groups(encoders["image"], fusion, *heads.values())  # audio is not in it
    b = balance.VanillaAux(trained, encoders, fusion, heads, epochs=2, dims=DIMS)
    b.begin(1)
    b.train_step(inputs(), Y)
    after = first.weight, encoders["audio"][1].running_mean  # type: ignore[union-attr]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    assert not first.weight.requires_grad
    assert first.weight.grad is None
    assert encoders["image"].training
    assert not encoders["audio"].training


def test_only_what_the_strategy_froze_is_woken() -> None:
    encoders, fusion, heads = parts()
    first = encoders["image"][0]
    first.requires_grad_(False)
    every = groups(*encoders.values(), fusion, *heads.values())
    b = balance.VanillaAux(every, encoders, fusion, heads, epochs=3, dims=DIMS)
    b.strategy.state.frozen = {"encoder.image", "fusion"}
    b.begin(1)
    assert not any(p.requires_grad for m in (encoders["image"], fusion) for p in m.parameters())
    b.begin(2)
    b.strategy.state.frozen = set()
    b.begin(3)
    assert fusion.training
    assert all(p.requires_grad for p in fusion.parameters())
    assert not any(p.requires_grad for p in first.parameters())


def test_the_user_s_random_numbers_are_the_user_s() -> None:
    drawn = []
    for seed in (1, 2):
        encoders, fusion, heads = parts()
        every = groups(*encoders.values(), fusion, *heads.values())
        torch.manual_seed(seed)
        balance.AUG(every, encoders, Sum(DIMS, 3), heads, epochs=2)
        drawn.append(torch.randperm(100))
    assert not torch.equal(*drawn)


def test_an_epoch_must_have_begun() -> None:
    encoders, fusion, heads = parts()
    every = groups(*encoders.values(), fusion, *heads.values())
    b = balance.Miles(every, encoders, fusion, heads, epochs=2, dims=DIMS)
    for call in (lambda: b.train_step(inputs(), Y), lambda: b.features(inputs(), Y)):
        with pytest.raises(ValueError, match=r"call begin\(epoch\) before"):
            call()
    b.begin(1)
    b.train_step(inputs(), Y)
    b.load_state_dict(b.state_dict())
    with pytest.raises(ValueError, match=r"call begin\(epoch\) before"):
        b.train_step(inputs(), Y)


@pytest.mark.parametrize("name, refused", [("OGM", True), ("VanillaAux", False)])
def test_gradients_that_a_strategy_changes_are_those_of_one_batch(name: str, refused: bool) -> None:
    encoders, fusion, heads = parts()
    every = groups(*encoders.values(), fusion, *heads.values())
    b = getattr(balance, name)(every, encoders, fusion, heads, epochs=2, dims=DIMS)
    x = inputs()

    def backward() -> None:
        z = b.features({m: e(x[m]) for m, e in b.encoders.items()}, Y)
        b.backward(b.loss(z, Y))

    b.begin(1)
    backward()
    b.step()
    backward()
    if refused:
        with pytest.raises(ValueError, match="cannot be accumulated"):
            backward()
    else:
        backward()
        b.step()


def test_a_strategy_for_certain_fusions_says_so() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(16, 3)

        def forward(self, z: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.out(torch.cat(list(z.values()), 1))

    for own in (True, False):
        for name in ("MMCosine", "Greedy", "AMCo", "MLA", "AUG", "ReconBoost"):
            encoders, linear, heads = parts()
            fusion = Own() if own else linear
            every = groups(*encoders.values(), fusion, *heads.values())
            make = getattr(balance, name)
            if own or name == "Greedy":
                with pytest.raises(ValueError, match=f"^{name} is not defined for this fusion"):
                    make(every, encoders, fusion, heads, epochs=2, dims=DIMS)
            else:
                b = make(every, encoders, fusion, heads, epochs=2, dims=DIMS)
                b.begin(1)
    encoders, _, heads = parts()
    fusion = Own()
    every = groups(*encoders.values(), fusion, *heads.values())
    with pytest.raises(ValueError, match="say how wide the features are: dims="):
        balance.CGGM(every, encoders, fusion, heads, epochs=2, direction=0)


def test_the_metrics_of_an_epoch_are_complete() -> None:
    encoders, fusion, heads = parts()
    every = groups(*encoders.values(), fusion, *heads.values())
    b = balance.Miles(every, encoders, fusion, heads, epochs=2, dims=DIMS)
    b.begin(1)
    with pytest.raises(ValueError, match="val has no metric of image, audio"):
        b.end(val={"fused": 0.5})


def test_a_balancer_is_copied_and_takes_encoders_without_parameters() -> None:
    _, fusion, heads = parts()
    encoders = {m: nn.Identity() for m in DIMS}
    every = groups(fusion, *heads.values())
    b = balance.VanillaAux(every, encoders, fusion, heads, epochs=2, dims=DIMS)
    twin = copy.deepcopy(b)
    x = {m: torch.randn(3, 8) for m in DIMS}
    for one in (b, twin):
        one.begin(1)
        one.train_step(x, Y)
    states = b.model.state_dict(), twin.model.state_dict()
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
