"""Strategies in the loops of accelerate and Lightning: the weights of a plain loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scheduler_kit import Optimizer, wanted

from miles_repro import balance

pytestmark = pytest.mark.slow


def balanced(optimizer: Any, network: Any, **given: Any) -> balance.Balancer:
    """OGM-GE around the examples' network: it changes gradients, so backward and step count."""
    encoders = {m: branch.encoder for m, branch in network.branches.items()}
    widths = dict.fromkeys(encoders, 16)
    return balance.OGMGE(optimizer, encoders, network.fusion, dims=widths, epochs=2, **given)


def parts_optimizer(network: Any) -> Optimizer:
    """A balancer wants parameter groups of its own for every encoder and for the fusion."""
    modules = [*(branch.encoder for branch in network.branches.values()), network.fusion]
    return torch.optim.Adam([{"params": list(m.parameters())} for m in modules], lr=0.02)


def two_epochs(b: balance.Balancer, batches: list[Any]) -> list[torch.Tensor]:
    """A plain loop around a balancer; the network's weights after it."""
    for epoch in (1, 2):
        b.begin(epoch)
        for image, audio, y in batches:
            x = {"image": image, "audio": audio}
            z = b.features({m: encode(x[m]) for m, encode in b.encoders.items()}, y)
            b.backward(b.loss(z, y))
            b.step()
        b.end(val={"fused": 0.5, "image": 0.5, "audio": 0.4})
    return [p.detach().clone() for p in b.model.parameters()]


def plainly(example: Any, toy: Any) -> list[torch.Tensor]:
    torch.manual_seed(0)
    network = toy.Network()
    optimizer = parts_optimizer(network)
    return two_epochs(balanced(optimizer, network), list(example.loader(100, 0)))


def test_a_balancer_under_accelerate(examples: None) -> None:
    """Its prepared optimizer and its backward: the weights of the plain loop."""
    accelerate = wanted("accelerate")
    import lightning_callback as example
    import toy

    want = plainly(example, toy)
    accelerator = accelerate.Accelerator(cpu=True)
    torch.manual_seed(0)
    network = toy.Network()
    made = parts_optimizer(network)
    network, optimizer, train = accelerator.prepare(network, made, example.loader(100, 0))
    b = balanced(optimizer, accelerator.unwrap_model(network), backward=accelerator.backward)
    found = two_epochs(b, list(train))
    assert all(torch.equal(p, q) for p, q in zip(found, want, strict=True))


def test_a_balancer_under_lightning(examples: None) -> None:
    """In a module with manual optimization: the weights of the plain loop."""
    lightning = wanted("lightning")
    import lightning_callback as example
    import toy

    class Module(example.Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self) -> Optimizer:
            return parts_optimizer(self.network)

        def on_fit_start(self) -> None:
            optimizer = self.optimizers().optimizer
            self.b = balanced(optimizer, self.network, backward=self.manual_backward)

        def on_train_epoch_start(self) -> None:
            self.b.begin(self.current_epoch + 1)

        def training_step(self, batch: Any, _: int) -> None:
            image, audio, y = batch
            x = {"image": image, "audio": audio}
            z = self.b.features({m: encode(x[m]) for m, encode in self.b.encoders.items()}, y)
            self.b.backward(self.b.loss(z, y))
            self.b.step()

        def on_train_epoch_end(self) -> None:
            self.b.end(val={"fused": 0.5, "image": 0.5, "audio": 0.4})

    want = plainly(example, toy)
    torch.manual_seed(0)
    module = Module()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", **quiet)
    trainer.fit(module, example.loader(100, 0))
    found = module.b.model.parameters()
    assert all(torch.equal(p, q) for p, q in zip(found, want, strict=True))
