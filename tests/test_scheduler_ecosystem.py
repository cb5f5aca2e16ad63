"""MILES with the real packages that people train with: timm, accelerate, Lightning, transformers.

Each test looks at the rates inside of the innermost step, where they count. A package that is not
installed skips its test loudly: ``pip install timm accelerate lightning``.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from scheduler_kit import (
    EVEN,
    LR,
    SLOW_AUDIO,
    SLOW_IMAGE,
    Optimizer,
    network,
    optimizer_of,
    scheduler_of,
    take_step,
    wanted,
)

from miles_repro import MILES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:no optimizer.step")]
SLOWED = pytest.approx([LR / 2, LR, LR], abs=1e-6)


def spy(optimizer: Optimizer) -> list[list[float]]:
    """Rates at the beginning of each step of ``optimizer``, filled as it is used."""
    seen: list[list[float]] = []
    optimizer.register_step_pre_hook(
        lambda o, *_: seen.append([float(g["lr"]) for g in o.param_groups])
    )
    return seen


@pytest.mark.parametrize("made", ["on the wrapper", "before it"])
def test_timm_lookahead(made: str) -> None:
    wanted("timm")
    from timm.optim import Lookahead

    model = network()
    base = optimizer_of(model)
    if made == "before it":
        miles = scheduler_of(model, base)
    optimizer = Lookahead(base, alpha=0.5, k=1000)
    if made == "on the wrapper":
        miles = scheduler_of(model, optimizer)
    miles.step(**SLOW_IMAGE)
    assert take_step(model, optimizer) == SLOWED
    assert miles.get_last_lr() == [LR / 2, LR, LR]
    saved: list[Any] = []
    base.register_step_pre_hook(lambda *_: saved.append(optimizer.state_dict()))
    take_step(model, optimizer)
    assert [g["lr"] for g in saved[0]["param_groups"]] == [LR] * 3
    optimizer.load_state_dict(copy.deepcopy(saved[0]))
    assert take_step(model, optimizer) == SLOWED
    with pytest.warns(UserWarning, match="that one is detached"):  # wrapped or not: one owner
        other = scheduler_of(model, base if made == "on the wrapper" else optimizer)
    other.step(**SLOW_AUDIO)
    assert take_step(model, optimizer) == pytest.approx([LR, LR / 2, LR], abs=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lamb", "sgdw", "adafactorbv", "lion"])
def test_timm_optimizers(name: str) -> None:
    """A slowed step is that of an optimizer with half the rate."""
    timm = wanted("timm")
    moved = {}
    for kind in ("MILES", "half"):
        model = network()
        groups = [{"params": list(m.parameters()), "lr": LR} for m in model.values()]
        if kind == "half":
            groups[0]["lr"] = LR / 2
        optimizer = timm.optim.create_optimizer_v2(groups, opt=name, lr=LR, weight_decay=0.01)
        if kind == "MILES":
            miles = scheduler_of(model, optimizer)
            miles.step(**SLOW_IMAGE)
        moved[kind] = [take_step(model, optimizer) for _ in range(3)]
    assert moved["MILES"] == moved["half"]


@pytest.mark.parametrize("made", ["after prepare", "before it"])
def test_accelerate(made: str) -> None:
    accelerate = wanted("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = network()
    raw = optimizer_of(model)
    if made == "before it":
        miles = scheduler_of(model, raw)
    optimizer = accelerator.prepare(raw)
    if made == "after prepare":
        miles = scheduler_of(model, optimizer)
    seen = spy(raw)
    miles.step(**SLOW_IMAGE)
    for _ in range(4):
        with accelerator.accumulate():
            accelerator.backward(torch.stack([p.sum() for p in model.parameters()]).sum())
            optimizer.step()
            optimizer.zero_grad()
    assert seen == [[LR / 2, LR, LR]] * 2
    assert [g["lr"] for g in raw.state_dict()["param_groups"]] == [LR] * 3
    if made == "after prepare":
        model_2, optimizer_2, miles_2 = copy.deepcopy((model, optimizer, miles))
        miles_2.step(**SLOW_AUDIO)
        assert take_step(model_2, optimizer_2) == pytest.approx([LR, LR / 2, LR], abs=1e-6)
        assert take_step(model, optimizer) == SLOWED


def test_lightning(examples: None, tmp_path: Path) -> None:
    lightning = wanted("lightning")
    import lightning_callback as example

    seen: list[list[float]] = []

    class Module(example.Module):
        def configure_optimizers(self) -> Optimizer:
            optimizer = super().configure_optimizers()
            optimizer.register_step_pre_hook(
                lambda o, *_: seen.append([g["lr"] for g in o.param_groups])
            )
            return optimizer

    def train(epochs: int, checkpoint: Path | None) -> MILES:
        lightning.seed_everything(0)
        callback = example.MilesCallback(tau=0.05)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        trainer = lightning.Trainer(
            max_epochs=epochs, accelerator="cpu", callbacks=[callback], **quiet
        )
        data = (example.loader(100, 0), example.loader(100, 1))
        trainer.fit(Module(), *data, ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return callback.miles

    whole = train(4, None)
    rates, seen[:] = list(seen), []
    train(2, None)
    rest = train(4, tmp_path / "last.ckpt")
    assert rest.state_dict() == whole.state_dict()
    assert seen == rates
    assert [0.01, 0.02, 0.02] in rates
    assert rates[0] == [0.02] * 3


def test_transformers_trainer(examples: None, tmp_path: Path) -> None:
    wanted("accelerate")
    transformers = wanted("transformers")
    import hf_trainer as example

    transformers.set_seed(0)
    model = example.Model()
    optimizer = torch.optim.Adam(model.network.groups(), lr=0.02)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    seen = spy(optimizer)
    callback = example.MilesCallback(dict(model.network.branches.items()), tau=0.05)
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=3, eval_strategy="epoch", save_strategy="epoch",
        report_to=[], disable_tqdm=True, use_cpu=True, per_device_train_batch_size=50,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model,
        arguments,
        train_dataset=example.samples(100, 0),
        eval_dataset=example.samples(100, 1),
        compute_metrics=example.accuracies,
        optimizers=(optimizer, constant),
        callbacks=[callback],
    )
    trainer.train()
    assert len(seen) == 6
    assert [0.01, 0.02, 0.02] in seen
    for path in tmp_path.glob("checkpoint-*/optimizer.pt"):
        saved = torch.load(path, weights_only=True)
        assert [g["lr"] for g in saved["param_groups"]] == [0.02] * 3


@pytest.mark.parametrize("rate", ["float", "tensor"])
def test_a_compiled_step(rate: str) -> None:
    model = network()
    groups = [{"params": list(m.parameters())} for m in model.values()]
    optimizer = torch.optim.Adam(groups, lr=torch.tensor(LR) if rate == "tensor" else LR)
    miles = scheduler_of(model, optimizer)
    moved = []

    @torch.compile(backend="aot_eager")
    def step() -> None:
        optimizer.step()

    for metrics in (EVEN, SLOW_IMAGE, SLOW_AUDIO, EVEN, SLOW_IMAGE):
        miles.step(**metrics)
        before = [m.weight.detach().clone() for m in model.values()]
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        step()
        new = [m.weight.detach() for m in model.values()]
        moved.append([float((b - n).mean()) for b, n in zip(before, new, strict=True)])
        assert moved[-1] == pytest.approx(miles.get_last_lr(), rel=1e-3)
        assert [float(g["lr"]) for g in optimizer.param_groups] == pytest.approx([LR] * 3)
    assert moved[1][0] < 0.6 * moved[0][0]


def test_averaged_weights_and_a_scaler() -> None:
    """A step that the scaler skips leaves nothing behind."""
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    seen = spy(optimizer)
    miles.step(**SLOW_IMAGE)
    for factor in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(torch.stack([p.sum() for p in model.parameters()]).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        averaged.update_parameters(model)
    assert seen == [[LR / 2, LR, LR]] * 2
