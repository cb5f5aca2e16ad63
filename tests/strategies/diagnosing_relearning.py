"""D&R: purity, schedule and re-initialised weights by numbers, through the strategy's own hook."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from rows import Row, Vector
from tiny_models import MODALITIES, close, linear, trained_context

from miles_repro.context import Context, Observation
from miles_repro.strategies import diagnosing_relearning
from miles_repro.strategies.diagnosing_relearning import DiagnosingRelearning, due, purity


def purities(v: Vector) -> None:
    for case, want in zip(v["inputs"]["cases"], v["expected"]["purity"], strict=True):
        found = purity(np.array(case["labels"]), np.array(case["clusters"]))
        assert found == pytest.approx(want, abs=v["abs_tol"])


def strengths(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    found = purity(np.array(i["y_true"]), np.array(i["clusters"]))
    assert found == pytest.approx(want["purity"], abs=v["abs_tol"])
    assert np.tanh(v["hyperparameters"]["move_lambda"] * np.array(i["purity_gaps"])) == (
        pytest.approx(want["reinit_strength"], abs=v["abs_tol"])
    )


def schedule(v: Vector) -> None:
    for case, want in zip(v["inputs"]["cases"], v["expected"]["reinit_after_epoch"], strict=True):
        epochs = []
        for epoch in range(case["epochs"]):
            if due(epoch, case["H"], len(epochs), case["num"]):
                epochs.append(epoch)
        assert epochs == want


def too_few_to_cluster(strategy: DiagnosingRelearning, ctx: Context) -> None:
    ctx.parts = {"val": [0]}  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="1 validation samples make no 3 clusters"):
        strategy.setup(ctx)


def after_second_epoch(
    v: Vector, initial: Vector, seen: list[Observation]
) -> tuple[DiagnosingRelearning, Context]:
    """The strategy after the epoch it is due; observations as given. Its run beside it."""
    strategy = DiagnosingRelearning(lam=v["hyperparameters"]["lambda"], every=0.1)
    ctx = trained_context(strategy, {**v, "inputs": {"model": initial}})
    given = iter(seen)
    ctx.observe = lambda split, rows=None: next(given)
    ctx.epoch = 1
    strategy.on_epoch_end(ctx, {}, {})
    assert not strategy.strength  # not after the very first
    return strategy, ctx


def diagnosis(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    model = {
        **{f"encoder_{m}": {"weight": [[1.0]], "bias": [0.0]} for m in MODALITIES},
        "head": {"weight": [[0.0] * 2] * 2, "bias": [0.0] * 2},
    }
    seen = [
        Observation(
            {m: torch.tensor(z) for m, z in i["features"][split].items()},
            {},
            torch.tensor(i["labels"][split]),
        )
        for split in ("train", "val")
    ]
    strategy, ctx = after_second_epoch(v, model, seen)
    ctx.task.num_classes = 2
    ctx.epoch = 2
    found = {
        f"{split}_{m}": diagnosing_relearning.separability(o.features[m], o.labels, 2)
        for split, o in zip(("train", "val"), seen, strict=True)
        for m in MODALITIES
    }
    assert found == pytest.approx(want["purity"], abs=v["abs_tol"])
    strategy.on_epoch_end(ctx, {}, {})
    assert list(strategy.strength.values()) == pytest.approx(want["alpha"], abs=v["abs_tol"])


def weights(v: Vector) -> None:
    i, want = v["inputs"], v["expected"]
    seen = [Observation(dict.fromkeys(MODALITIES, torch.zeros(1, 2)), {}, torch.zeros(1))] * 2
    strategy, ctx = after_second_epoch(v, i["initial"], seen)
    too_few_to_cluster(DiagnosingRelearning(), ctx)
    for m in MODALITIES:
        now = i["current"][f"encoder_{m}"]
        ctx.model.encoders[m].load_state_dict(linear(**now).state_dict())
    head = i["current"]["head"]
    ctx.model.fusion.linear.load_state_dict(linear(**head).state_dict())
    ctx.epoch = 2
    found = [p for m in MODALITIES for p in (0.9, 0.9 - i["purity_gap"][m])]
    with patch.object(diagnosing_relearning, "separability", lambda *_: found.pop(0)):
        strategy.on_epoch_end(ctx, {}, {})
    assert strategy.strength == pytest.approx(want["alpha"], abs=v["abs_tol"])
    modules = {
        **{f"encoder_{m}": ctx.model.encoders[m] for m in MODALITIES},
        "head": ctx.model.fusion.linear,
    }
    for name, value in want["new_weights"].items():
        part, parameter = name.split(".")
        close(getattr(modules[part], parameter).detach(), value, v)


ROW = Row(
    needed=("strategy.every=0.34",),
    neutral=[({"strategy.lam": 0.0}, "vanilla"), ({"strategy.most": 0}, "vanilla")],
    golden={
        "diagnosing_relearning": strengths,
        "dr_purity": purities,
        "dr_reinit": weights,
        "dr_diagnosis": diagnosis,
        "dr_schedule": schedule,
    },
)
