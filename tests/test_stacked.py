"""A stack of runs computes what its runs compute one by one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from support import (
    FUSIONS,
    STRATEGIES,
    build_fit,
    compose,
    rows_without_time,
    settings,
    strategy_overrides,
)

from miles_repro import config as configuration
from miles_repro import run as running
from miles_repro import stacked
from miles_repro.config import Config
from miles_repro.errors import UserError
from miles_repro.loop import Fit
from miles_repro.records import ERROR, load_rows
from miles_repro.run import run, run_all

INSIDE_THE_PASS = {"ogm", "ogm_ge", "modality_dropout"}
"""Strategies that change features or gradients between the layers."""


def stack(
    data: Path, runs: Path, strategy: str, fusion: str = "concat", **values: Any
) -> list[Config]:
    """Configurations of a stack over ``seed`` (default 0, 1, 2) and ``trial``."""
    overrides = strategy_overrides(strategy, fusion)
    composed = compose("dataset=tiny", *overrides)
    paths = {"runtime.data_dir": str(data), "runtime.runs_dir": str(runs)}
    for key, value in {**paths, "runtime.device": "cpu", "seed": [0, 1, 2], **values}.items():
        OmegaConf.update(composed, key, value, merge=False, force_add=True)
    return configuration.load_all(composed, overrides)


def in_double(fit: Fit) -> Fit:
    """In float32 Adam makes visible steps of invisible differences. Scores stay in float32."""
    fit.model.double()
    for part in (fit.train, fit.val):
        assert part._resident is not None
        part._resident = {
            m: v.double() if v.is_floating_point() else v for m, v in part._resident.items()
        }
    return fit


def both_ways(configs: list[Config]) -> tuple[list[list[Any]], list[list[Any]]]:
    """The rows of every run, trained alone and in the stack."""
    alone = [list(in_double(build_fit(c)).epochs()) for c in configs]
    fits = [in_double(build_fit(c)) for c in configs]
    together: list[list[Any]] = [[] for _ in fits]
    for rows in stacked.epochs(fits):
        for i, row in rows:
            together[i].append(row)
    return alone, together


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    return [value]


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_stacks_exactly_or_says_why_not(
    tiny_data: Path, tmp_path: Path, strategy: str, fusion: str
) -> None:
    values: dict[str, Any] = {"epochs": 4}
    if strategy == "mses":  # parts freeze at different epochs, and whole runs stop
        values |= {"strategy.patience": 0.26}
    configs = stack(tiny_data, tmp_path, strategy, fusion, **values)
    if strategy in INSIDE_THE_PASS:
        with pytest.raises(UserError, match=f"strategy {strategy}: cannot be stacked"):
            build_fit(configs[0])
        return
    alone, together = both_ways(configs)
    assert [len(rows) for rows in together] == [len(rows) for rows in alone]
    assert len({json.dumps(rows) for rows in together}) == len(configs)  # three different runs
    for ours, theirs in zip(together, alone, strict=True):
        assert numbers({str(i): r for i, r in enumerate(ours)}) == pytest.approx(
            numbers({str(i): r for i, r in enumerate(theirs)}), rel=5e-7, abs=1e-9, nan_ok=True
        )


@pytest.mark.parametrize(
    "values",
    [
        {"unimodal_source": "probe", "optimizer.clip_norm": 0.1},
        {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "optimizer.schedule": "cosine"},
        {"seed": 0, "trial": [0, 1, 2]},
        {"seed": [4, 5], "trial": [1, 2]},
    ],
    ids=["probe-clip", "sgd", "trials", "trials-seeds"],
)
def test_settings_and_trials_stack_exactly(
    tiny_data: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    configs = stack(tiny_data, tmp_path, "vanilla", epochs=2, **values)
    alone, together = both_ways(configs)
    for ours, theirs in zip(together, alone, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert numbers(a) == pytest.approx(numbers(b), rel=5e-7, abs=1e-9, nan_ok=True)


def test_the_weights_are_the_models_own_again(tiny_data: Path, tmp_path: Path) -> None:
    """A slice of a stack would be saved with the whole stack."""
    fits = [build_fit(c) for c in stack(tiny_data, tmp_path, "miles", epochs=1)]
    list(stacked.epochs(fits))
    tensors = [*fits[0].model.parameters(), *fits[0].model.buffers()]
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in tensors)
    first, second = (torch.cat([p.flatten() for p in f.model.parameters()]) for f in fits[:2])
    assert not torch.equal(first, second)


def test_records_of_a_stack(tiny_data: Path, tmp_path: Path) -> None:
    """One record a run, with ids that separate runs do not have, each as good as theirs."""
    configs = stack(tiny_data, tmp_path, "miles", epochs=2)
    outcomes = run_all(configs, "test")
    assert [o.status for o in outcomes] == ["done"] * 3
    assert [o.config.seed for o in outcomes] == [0, 1, 2]
    for outcome in outcomes:
        single = settings(
            tiny_data, tmp_path, *strategy_overrides("miles"), epochs=2, seed=outcome.config.seed
        )
        assert single.run_id != outcome.config.run_id
        assert outcome.summary is not None
        assert outcome.summary["config"]["stacked"] is True
        assert "stacked" not in single.identity()
        assert len(load_rows(outcome.config.run_dir)) == 2
    assert [o.status for o in run_all(configs, "again")] == ["skipped"] * 3


def test_the_cost_is_shared_out(tiny_data: Path, tmp_path: Path) -> None:
    """Three runs at once cost what passes on the clock, not three times that."""
    configs = stack(tiny_data, tmp_path, "miles", epochs=4)
    started = time.perf_counter()
    outcomes = run_all(configs, "test")
    passed = time.perf_counter() - started
    costs = [o.summary["cost"] for o in outcomes if o.summary]
    assert 0 < sum(c["wall_s"] for c in costs) <= passed
    train_s = [4 * 26 / c["train_samples_per_s"] for c in costs]  # 26 samples an epoch
    assert 0 < sum(train_s) <= passed


def test_a_broken_off_stack_goes_on(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SAVE_EVERY_S", 0.0)

    class Killed(Exception):
        pass

    def kill(config: Config, row: dict[str, Any]) -> None:
        if (row["epoch"], config.seed) == (2, 1):
            raise Killed

    whole = stack(tiny_data, tmp_path / "whole", "miles", epochs=4)
    broken = stack(tiny_data, tmp_path / "broken", "miles", epochs=4)
    run_all(whole, "test")
    with pytest.raises(Killed):
        run_all(broken, "test", kill)
    assert [o.status for o in run_all(broken, "test")] == ["done"] * 3
    for a, b in zip(whole, broken, strict=True):
        assert rows_without_time(a.run_dir) == rows_without_time(b.run_dir)


def test_what_is_finished_is_left_out_of_the_stack(tiny_data: Path, tmp_path: Path) -> None:
    configs = stack(tiny_data, tmp_path, "miles", epochs=1)
    run_all(configs[:1], "test")
    assert [o.status for o in run_all(configs, "test")] == ["skipped", "done", "done"]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"seed": []}, "seed=.*different values"),
        ({"seed": [1, 1]}, "seed=.*different values"),
        ({"precision.channels_last": True}, "precision.channels_last"),
        ({"precision.compile": True}, "precision.compile"),
    ],
)
def test_what_cannot_be_a_stack(
    tiny_data: Path, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        stack(tiny_data, tmp_path, "miles", **values)


def test_dropout_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    encoder = {"_target_": "test_run.Dropping"}
    configs = stack(tiny_data, tmp_path, "miles", **{"dataset.modalities.audio.encoder": encoder})
    with pytest.raises(UserError, match="Dropout in the model"):
        run_all(configs, "test")
    assert not (configs[0].run_dir / ERROR).exists()


def test_one_run_is_not_a_stack(tiny_data: Path, tmp_path: Path) -> None:
    (config,) = stack(tiny_data, tmp_path, "vanilla", seed=0)
    assert not config.stacked
    assert run(config, "test").status == "done"
