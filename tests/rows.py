"""A strategy's row of the contract tests: one file a strategy, ``tests/strategies/<name>.py``.

It defines ``ROW`` and, beside it, the checks of its golden vectors. Nothing else lists strategies:
``test_contract`` and ``test_golden`` go through the rows.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from miles_repro.context import Context, Teacher
from miles_repro.fusions.base import Fusion
from miles_repro.fusions.concat import Concat
from miles_repro.model import Multimodal
from miles_repro.recipe import Recipe
from miles_repro.strategy import Strategy
from miles_repro.tasks import Multiclass, Task

HERE = Path(__file__).parent
Vector = dict[str, Any]
Check = Callable[[Vector], None]


@dataclass(frozen=True)
class Row:
    """What the contract tests need to know of a strategy beyond its ``needs``.

    needed: overrides with which it runs, and acts, within three epochs on the tiny data sets;
    values: tiny data set -> further values there (full key -> value);
    like: the strategy of the same loss that it is compared with; touches: the groups whose
    parameters differ from that one's after one SGD step, exactly one of these sets (None: not
    compared); neutral: values -> the strategy it then equals bit for bit;
    learns: whether its training loss has to fall; golden: prefix of vector ids -> their check.
    """

    needed: Sequence[str] = ()
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    like: str = "vanilla"
    touches: Sequence[set[str]] | None = None
    neutral: Sequence[tuple[Mapping[str, Any], str]] = ()
    learns: bool = True
    golden: Mapping[str, Check] = field(default_factory=dict)


@cache
def rows() -> dict[str, Row]:
    """Strategy -> its row."""
    return {path.stem: _load(path).ROW for path in sorted((HERE / "strategies").glob("*.py"))}


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"row_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vectors() -> list[tuple[str, Vector]]:
    """(strategy, vector) of every file in tests/golden: one a strategy."""
    return [
        (path.stem, vector)
        for path in sorted((HERE / "golden").glob("*.json"))
        for vector in json.loads(path.read_text())["vectors"]
    ]


def context(
    strategy: Strategy,
    encoders: Mapping[str, nn.Module],
    fusion: Fusion | None = None,
    *,
    heads: Mapping[str, nn.Module] | None = None,
    task: Task | None = None,
    lr: float = 1e-3,
    epochs: int = 10,
    teachers: Mapping[str, Teacher] | None = None,
    optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
    **recipe: Any,
) -> Context:
    """A run around given modules as a strategy sees it, in epoch 1: set up, optimizer made."""
    task = task or Multiclass(3)
    fusion = fusion or Concat(dict.fromkeys(encoders, 3), task.num_classes)
    made = Recipe(
        lr=lr,
        optimizer=optimizer or (lambda groups: torch.optim.SGD(groups, lr=lr)),
        batch_size=64,
        epochs=epochs,
        seed=0,
        device=torch.device("cpu"),
        **recipe,
    )
    model = Multimodal(encoders, fusion, heads or {})
    ctx = Context(model, task, made, strategy, teachers=teachers or {})
    ctx.model.adopt(strategy.modules(ctx))
    strategy.setup(ctx)
    ctx.optimizer = made.optimize(ctx.model.parts())
    ctx.epoch = 1
    return ctx
