"""ReconBoost: two real stages from unimodal models, both losses, and who is trained when."""

import pytest
import torch
from rows import Row, Vector, context
from steps import a_batch, a_linear, assert_weights, encoders
from torch import Tensor, nn

from miles_repro.context import Teacher
from miles_repro.fusions.late import Late
from miles_repro.strategies.reconboost import Ensemble, ReconBoost, memory_term, reconciled
from miles_repro.tasks import Multiclass

TASK = Multiclass(3)


def stages(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    parts, batch, order = encoders(i["model"]), a_batch(i["batch"]), i["modality_order"]
    strategy = ReconBoost(w1=h["weight1"], w2=h["weight2"], memory=0.0, phase=0.25)
    ctx = context(strategy, parts, Late(dict.fromkeys(order, 2), 3), epochs=4)
    ctx.teachers = {
        m: Teacher(a_linear(i["model"][f"encoder_{m}"]), a_linear(i["model"][f"aux_{m}"]))
        for m in order
    }
    strategy.init = "teacher"
    strategy.setup(ctx)
    fusion = ctx.model.fusion
    assert isinstance(fusion, Ensemble)
    fusion.linear.load_state_dict(a_linear(i["model"]["shared"]).state_dict())
    ctx.optimizer = torch.optim.SGD(
        ctx.model.parameters(),
        lr=h["lr"],
        momentum=h["momentum"],
        weight_decay=h["weight_decay"],
    )
    for epoch in (1, 2, 3, 4):
        ctx.epoch = epoch
        strategy.on_epoch_start(ctx)
        for name, part in ctx.model.parts().items():  # as the loop does
            part.requires_grad_(name not in strategy.state.frozen)
        strategy.step(ctx, batch)
        if epoch % 2 == 0:
            weights = dict(want["weights_after_stage"][epoch // 2 - 1])
            assert float(fusion.rho.detach()) == pytest.approx(
                weights.pop("boost_rate"), abs=v["abs_tol"]
            )
            modules = {f"encoder_{m}": parts[m] for m in order} | {"shared": fusion.linear}
            assert_weights(modules, weights, v["abs_tol"])
    for m in order:  # the heads given were used, never changed
        before = a_linear(i["model"][f"aux_{m}"]).weight
        assert torch.equal(fusion.heads[m].weight, before)  # type: ignore[arg-type]


def boosting(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    current = torch.tensor(i["out_current"]).requires_grad_()
    others, y = torch.tensor(i["out_joint_others"]), torch.tensor(i["labels"])
    loss = reconciled(TASK, current, others, y, h["weight1"], h["weight2"])
    mean = sum(want["boosting_loss_per_sample"]) / len(y)
    assert float(loss.detach()) == pytest.approx(mean, abs=v["abs_tol"])
    close(torch.autograd.grad(loss, current)[0], want["grad_out_current"], v)
    previous = torch.tensor(i["out_previous_modality"])
    memory = float(memory_term(TASK, current.detach(), previous))
    assert memory == pytest.approx(want["ga_loss"], abs=v["abs_tol"])


def residual(v: Vector) -> None:
    i, h, want = v["inputs"], v["hyperparameters"], v["expected"]
    current = torch.tensor(i["logits_current"]).requires_grad_()
    others = h["boost_rate"] * torch.tensor(i["logits_others"]).sum(0)
    loss = reconciled(TASK, current, others, torch.tensor(i["y"]), h["weight1"], h["weight2"])
    assert float(loss.detach()) == pytest.approx(want["loss"], abs=v["abs_tol"])
    close(torch.autograd.grad(loss, current)[0], want["grad"], v)


def memory(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    current = torch.tensor(i["logits_current"]).requires_grad_()
    previous = torch.tensor(i["logits_previous_modality"]).requires_grad_()
    term = memory_term(TASK, current, previous)
    assert float(term.detach()) == pytest.approx(want["ga_loss"], abs=v["abs_tol"])
    (v["hyperparameters"]["alpha"] * term).backward()
    assert current.grad is not None
    close(current.grad, want["alpha_ga_grad_current"], v)
    assert previous.grad is None


def close(found: Tensor, want: object, v: Vector) -> None:
    torch.testing.assert_close(found, torch.tensor(want), atol=v["abs_tol"], rtol=0)


def schedule(v: Vector) -> None:
    cases, want = v["inputs"]["cases"], v["expected"]
    for case, trained, previous in zip(cases, want["trained"], want["previous"], strict=True):
        strategy, order = ReconBoost(phase=0.1), case["modalities"]
        parts: dict[str, nn.Module] = {m: nn.Identity() for m in order}
        ctx = context(strategy, parts, Late(dict.fromkeys(order, 3), 3))
        for stage in range(case["stages"]):
            for ctx.epoch, boosting in ((2 * stage + 1, True), (2 * stage + 2, False)):
                strategy.on_epoch_start(ctx)
                assert (strategy.stage, strategy.boosting) == (stage, boosting)
                rest = {f"encoder.{m}" for m in order if m != trained[stage]}
                assert strategy.state.frozen == (rest if boosting else set())
            assert strategy.trains(ctx, stage) == trained[stage]
            if stage:
                assert strategy.trains(ctx, stage - 1) == previous[stage]


ROW = Row(
    golden={
        "reconboost": boosting,
        "recon_stages": stages,
        "recon_residual": residual,
        "recon_memory": memory,
        "recon_schedule": schedule,
    },
)
