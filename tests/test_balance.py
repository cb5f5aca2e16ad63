"""Strategies in a foreign loop: the bits of the suite's own, and one line for what is missing."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from balance_kit import DIMS, groups, parts
from rows import rows
from support import (
    STRATEGIES,
    build_fit,
    compose,
    parameters,
    same_tensors,
    settings,
    strategy_overrides,
)
from torch import nn
from torch.nn.functional import cross_entropy

from miles_repro import balance
from miles_repro.config import LABELS, target
from miles_repro.evaluate import score
from miles_repro.loop import Fit, batches
from miles_repro.seeding import derive
from miles_repro.strategy import Strategy

JOINT = [s for s in STRATEGIES if s != "unimodal"]


def whole(fit: Fit, split: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    part = fit.ctx.parts[split]
    return part.batch(torch.arange(len(part)))


def adapter(fit: Fit, **changes: Any) -> balance.Balancer:
    """A balancer around a fresh fit's modules, as its user would have made them."""
    own = {f"own.{g}" for g in fit.model.own}
    parts = {k: v for k, v in fit.model.parts().items() if k not in own}
    for group in list(fit.model.own):  # the balancer makes the strategy's own modules itself
        parts.pop(group.replace("/", "."))
        del fit.model.own[group]
    given: dict[str, Any] = {
        "heads": dict(fit.model.heads.items()),
        "epochs": fit.recipe.epochs,
        "teachers": fit.ctx.teachers,
        "data": {split: whole(fit, split) for split in ("train", "val")},
        "seed": fit.recipe.seed,
        "clip_norm": fit.recipe.clip_norm,
        "batch_size": fit.recipe.batch_size,
    }
    strategy = type(fit.strategy)(
        **{f.name: getattr(fit.strategy, f.name) for f in dataclasses.fields(fit.strategy)}
    )
    return balance.Balancer(
        strategy,
        fit.recipe.optimize(parts),
        dict(fit.model.encoders.items()),
        fit.model.fusion,
        **{**given, **changes},
    )


def by_hand(fit: Fit) -> balance.Balancer:
    """A training loop of one's own around the balancer."""
    b = adapter(fit)
    pieces = type(b.strategy).step is Strategy.step
    for epoch in range(1, fit.recipe.epochs + 1):
        b.begin(epoch)
        torch.manual_seed(derive(fit.recipe.seed, "epoch", epoch))
        seen, labels = [], []
        fit.ctx.epoch = epoch
        for batch in batches(fit.ctx, fit.train, b.order(b.ctx.rows)):
            if pieces and batch.keep is None:
                encoded = {m: e(batch.x[m]) for m, e in b.encoders.items()}
                z = b.features(encoded, batch.y, batch.rows)
                loss = b.loss(z, batch.y)
                assert b.output is not None
                seen.append(b.ctx.logits(b.output))
                b.backward(loss)
                b.step()
            else:
                seen.append(b.train_step(batch.x, batch.y, batch.rows, batch.keep, batch.segment))
            labels.append(batch.y)
        train = (
            score(
                fit.task, {k: torch.cat([s[k] for s in seen]) for k in seen[0]}, torch.cat(labels)
            )
            if seen
            else {}
        )
        b.model.eval()
        x, y = whole(fit, "val")
        val = score(fit.task, b.logits(x), y)
        b.model.train()
        if b.end(val=val, train=train):
            break
    return b


@pytest.mark.parametrize("strategy", JOINT)
def test_a_foreign_loop_gives_the_same_weights(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    overrides = strategy_overrides(strategy)
    config = settings(tiny_data, tmp_path, *overrides, epochs=4)
    suite, own = build_fit(config), build_fit(config)
    list(suite.epochs())
    b = by_hand(own)
    state = {
        f"{p}:{k}": v for p, m in b.ctx.model.parts().items() for k, v in m.state_dict().items()
    }
    assert same_tensors(parameters(suite), state)
    assert suite.strategy.log() == b.strategy.log()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_defaults_of_the_class_are_those_of_the_yaml(strategy: str) -> None:
    composed = compose(*strategy_overrides(strategy))["strategy"]
    raw = {k: composed[k] for k in composed if k not in LABELS and k != "_target_"}
    asked = {o.split("=")[0].removeprefix("strategy.") for o in rows()[strategy].needed}
    fields = {f.name: f for f in dataclasses.fields(target({"_target_": composed["_target_"]}))}
    assert raw.keys() == fields.keys()
    for name, value in raw.items():
        default = fields[name].default
        if name not in asked and default is not dataclasses.MISSING and name != "modality":
            assert value == default, name


# --- as its user meets it ---------------------------------------------------------------------


def test_the_loop_of_the_documentation() -> None:
    encoders, fusion, heads = parts()
    optimizer = groups(*encoders.values(), fusion, *heads.values())
    b = balance.Miles(
        optimizer, encoders, fusion, heads, epochs=6, dims={"image": 8, "audio": 8}, tau=0.0, mu=0.5
    )
    y = torch.randint(3, (60,))
    x = {m: torch.eye(4)[y] + s * torch.randn(60, 4) for m, s in (("image", 0.1), ("audio", 2.0))}
    losses = []
    for epoch in range(1, 7):
        b.begin(epoch)
        for _ in range(5):
            z = b.features({m: e(x[m]) for m, e in b.encoders.items()}, y)
            loss = b.loss(z, y)
            losses.append(float(loss.detach()))
            b.backward(loss)
            b.step()
        found = {k: float((v.argmax(1) == y).float().mean()) for k, v in b.logits(x).items()}
        assert not b.end(val=found)
        assert {g["lr"] for g in optimizer.param_groups} == {0.1}
    assert losses[-1] < losses[0]
    assert b.strategy.state.lr_factors["encoder.image"] == 0.5
    assert b.strategy.state.lr_factors["encoder.audio"] == 1.0


def test_a_plain_module_fuses_and_a_backward_of_ones_own_is_used() -> None:
    encoders, _, _ = parts()

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(8, 3)

        def forward(self, z: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.out(z["image"] * z["audio"])

    fusion, calls = Product(), []

    def backward(loss: torch.Tensor) -> None:
        calls.append(float(loss.detach()))
        loss.backward()

    b = balance.OGM(
        groups(*encoders.values(), fusion), encoders, fusion, epochs=2, backward=backward
    )
    y, x = torch.tensor([0, 1, 2]), {m: torch.randn(3, 4) for m in encoders}
    b.begin(1)
    expected = float(cross_entropy(fusion({m: e(x[m]) for m, e in encoders.items()}), y).detach())
    b.train_step(x, y)
    assert calls == [pytest.approx(expected)]
    assert set(b.logits(x)) == {"fused", "image", "audio"}


def test_it_needs_torch_alone() -> None:
    """No library of the suite is imported, by the adapter or by any strategy."""
    heavy = ["pydantic", "hydra", "omegaconf", "pandas", "scipy", "sklearn", "wandb", "matplotlib"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy}))\n"
        "from miles_repro import balance, strategies\n"
        "import importlib, pkgutil\n"
        "for m in pkgutil.iter_modules(strategies.__path__):\n"
        "    importlib.import_module(f'miles_repro.strategies.{m.name}')\n"
        "assert balance.OGMGE and balance.Miles\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_strategy_has_a_public_name() -> None:
    for strategy in JOINT:
        path = compose(*strategy_overrides(strategy))["strategy"]["_target_"]
        module, _, name = path.rpartition(".")
        assert getattr(balance, name).__name__ == name
        assert getattr(importlib.import_module(module), name).__doc__


def test_mlb_takes_a_foreign_optimizer_for_what_it_is() -> None:
    encoders, fusion, heads = parts()
    sgd = groups(*encoders.values(), fusion, *heads.values())
    b = balance.MLB(sgd, encoders, fusion, heads, epochs=5, dims=DIMS)
    assert isinstance(b.ctx.optimizer, torch.optim.SGD)
    assert b.strategy._by_rate(b.ctx) is False
    rate = torch.tensor(0.1)
    adam = torch.optim.Adam(sgd.param_groups, lr=rate)
    for group in adam.param_groups:
        group["lr"] = rate
    b = balance.MLB(adam, encoders, fusion, heads, epochs=5, dims=DIMS)
    y, x = torch.tensor([0, 1, 2]), {m: torch.randn(3, 4) for m in encoders}
    b.begin(1)
    for _ in range(3):
        b.train_step(x, y)
    assert all(float(g["lr"]) == pytest.approx(0.1) for g in adam.param_groups)
