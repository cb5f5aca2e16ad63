"""Saving, loading and copying ``MILES``; ranks that agree; what type checkers see."""

from __future__ import annotations

import copy
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from commands import REPO
from scheduler_kit import (
    COURSE,
    LR,
    SLOW_AUDIO,
    SLOW_IMAGE,
    Optimizer,
    network,
    optimizer_of,
    scheduler_of,
    take_step,
)
from torch import nn
from torch.optim import lr_scheduler

from miles_repro import MILES

pytestmark = pytest.mark.filterwarnings("ignore:no optimizer.step")


def test_state_survives_a_restart() -> None:
    def begin() -> tuple[nn.ModuleDict, Optimizer, MILES, Any]:
        model = network()
        optimizer = optimizer_of(model, torch.optim.Adam)
        return (
            model,
            optimizer,
            scheduler_of(model, optimizer),
            lr_scheduler.StepLR(optimizer, 2, 0.5),
        )

    def epoch(parts: tuple[nn.ModuleDict, Optimizer, MILES, Any], i: int) -> list[float]:
        model, optimizer, miles, schedule = parts
        torch.manual_seed(i)
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
        schedule.step()
        miles.step(**COURSE[i])
        return miles.get_last_lr()

    whole = begin()
    expected = [epoch(whole, i) for i in range(8)]
    first = begin()
    found = [epoch(first, i) for i in range(4)]
    states = copy.deepcopy([part.state_dict() for part in first])
    assert json.loads(json.dumps(states[2])) == states[2]  # plain: json, weights_only
    second = begin()
    for part, state in zip(second, states, strict=True):
        part.load_state_dict(state)
    assert second[2].get_last_lr() == first[2].get_last_lr()
    found += [epoch(second, i) for i in range(4, 8)]
    assert found == expected
    for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_taken_while_slowed_holds_the_users_rate() -> None:
    model = network()
    optimizer = optimizer_of(model)
    scheduler_of(model, optimizer).step(**SLOW_IMAGE)
    take_step(model, optimizer)
    assert [g["lr"] for g in optimizer.state_dict()["param_groups"]] == [LR] * 3


def test_the_state_is_complete() -> None:
    model = network()
    literal = scheduler_of(model, optimizer_of(model), tau=0.1, mu=0.3, reset_other=False)
    literal.step(**SLOW_IMAGE)
    other = network()
    fresh = scheduler_of(other, optimizer_of(other), mode="min", rule="all_pairs")
    fresh.load_state_dict(literal.state_dict())
    assert fresh.state_dict() == literal.state_dict()
    assert (fresh.last_epoch, fresh.delta) == (1, pytest.approx(0.5))
    for miles in (literal, fresh):
        assert miles.step(**SLOW_AUDIO) == {"image": 0.3, "audio": 0.3}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"factors": None}, "no state of MILES: it lacks factors"),
        ({"delta": None, "mode": None}, "it lacks mode, delta"),
        ({"factors": {"a": 1.0, "b": 1.0}}, r"for \['a', 'b'\], not \['image', 'audio'\]"),
        ({"factors": {"image": 0.0, "audio": 1.0}}, "must be above 0 and at most 1"),
        ({"tau": math.nan}, "tau=nan"),
        ({"mode": "worst"}, "mode='worst' must be 'max' or 'min'"),
    ],
)
def test_a_wrong_state_is_one_clear_line_and_loads_nothing(
    change: dict[str, Any], words: str
) -> None:
    model = network()
    miles = scheduler_of(model, optimizer_of(model))
    miles.step(**SLOW_IMAGE)
    before = miles.state_dict()
    state = {**before, "tau": 0.7, **change}
    state = {k: v for k, v in state.items() if v is not None}
    with pytest.raises(ValueError, match=words):
        miles.load_state_dict(state)
    assert miles.state_dict() == before


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda parts: pickle.loads(pickle.dumps(parts))}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("moment", ["between steps", "inside a step"])
def test_a_copy_acts_on_its_own_optimizer(how: str, moment: str) -> None:
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    miles.step(**SLOW_IMAGE)
    found: list[Any] = []

    def duplicate() -> float:
        found.append(COPIES[how]((model, optimizer, miles)))
        return 0.0

    if moment == "inside a step":
        optimizer.step(duplicate)
    else:
        duplicate()
    model_2, optimizer_2, miles_2 = found[0]
    assert [group["lr"] for group in optimizer_2.param_groups] == [LR] * 3
    assert miles_2.get_last_lr() == [LR / 2, LR, LR]
    assert take_step(model_2, optimizer_2) == pytest.approx([LR / 2, LR, LR], abs=1e-6)
    miles_2.step(**SLOW_AUDIO)
    assert take_step(model_2, optimizer_2) == pytest.approx([LR, LR / 2, LR], abs=1e-6)
    assert take_step(model, optimizer) == pytest.approx([LR / 2, LR, LR], abs=1e-6)


def test_a_copy_of_a_detached_one_is_detached() -> None:
    model = network()
    miles = scheduler_of(model, optimizer_of(model))
    miles.step(**SLOW_IMAGE)
    miles.detach()
    assert copy.deepcopy(miles).get_last_lr() == [LR] * 3


def rank(number: int, store: str, queue: Any) -> None:
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=number, world_size=2)
    model = network()
    optimizer = optimizer_of(model)
    miles = scheduler_of(model, optimizer)
    take_step(model, optimizer)
    own = (SLOW_IMAGE, SLOW_AUDIO)[number]  # each rank has validated on its own shard
    miles.step(**own)
    queue.put((number, miles.factors, miles.utilization, take_step(model, optimizer)))
    torch.distributed.destroy_process_group()


def test_ranks_follow_rank_0(tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("spawn")
    queue = context.Queue()
    arguments = [(number, str(tmp_path / "store"), queue) for number in range(2)]
    ranks = [context.Process(target=rank, args=a) for a in arguments]
    for process in ranks:
        process.start()
    found = sorted(queue.get(timeout=120) for _ in ranks)
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    (_, *first), (_, *second) = found
    assert first[0] == {"image": 0.5, "audio": 1.0}
    assert first == second


SNIPPET = """
import numpy as np
import torch
from torch import nn

from miles_repro import MILES

image, audio = nn.Linear(2, 2), nn.Linear(2, 2)
groups = [{"params": list(m.parameters())} for m in (image, audio)]
optimizer = torch.optim.AdamW(groups, lr=0.1)
miles = MILES(optimizer, {"image": image, "audio": audio.parameters()}, mode="min")
MILES(optimizer, {"image": image.named_parameters(), "audio": [audio]}, rule="all_pairs")
MILES(optimizer, groups={"image": [0], "audio": [1]}, tau=0.1, mu=0.5).detach()
accuracy = {"image": torch.tensor(0.5), "audio": torch.tensor(0.1)}
factors: dict[str, float] = miles.step(fused=torch.tensor(0.6), **accuracy)
miles.step(fused=np.float32(0.6), unimodal={"image": np.float64(0.5), "audio": 1})
rates: list[float] = miles.get_last_lr()
miles.load_state_dict(miles.state_dict())
epoch: int = miles.last_epoch
"""


def test_strict_type_checkers_accept_the_use(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    (tmp_path / "wrong.py").write_text(SNIPPET + 'miles.step(fused="high", image=1, audio=2)\n')
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(
        [*command, "snippet.py", "wrong.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(REPO), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    own = [line for line in done.stdout.splitlines() if line.startswith(("snippet", "wrong"))]
    assert len(own) == 1, done.stdout + done.stderr
    assert own[0].startswith('wrong.py:20: error: Argument "fused"')
