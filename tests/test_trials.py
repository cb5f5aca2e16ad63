"""Trials: what their numbers stand for, and which records a run may take values from."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from support import compose, settings, strategy_overrides

from miles_repro.errors import UserError
from miles_repro.records import SUMMARY, load_summaries
from miles_repro.run import run
from miles_repro.trials import draw

LR_SPACE = {"log_uniform": [1e-5, 1e-3]}
TAU_SPACE = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5]
SGD = ("optimizer=sgd", "optimizer/schedule=constant")


def refused(data_dir: Path, runs_dir: Path, *overrides: str, **values: Any) -> str:
    """The one line that composing this configuration gives."""
    with pytest.raises(UserError) as error:
        settings(data_dir, runs_dir, *overrides, **values)
    assert "\n" not in str(error.value)
    return str(error.value)


# Draws


@pytest.mark.parametrize(
    "space, where, value",
    [
        (LR_SPACE, ("cremad", "concat", "miles", "optimizer.lr", 1), 0.00015711304597515214),
        (LR_SPACE, ("cremad", "concat", "miles", "optimizer.lr", 2), 0.0005621301225155292),
        (TAU_SPACE, ("cremad", "concat", "miles", "strategy.tau", 1), 0.05),
        ({"uniform": [0.1, 0.4]}, ("luma", "sum", "x", "strategy.p", 3), 0.27672215486755447),
    ],
)
def test_draws_are_pinned(space: Any, where: tuple[Any, ...], value: float) -> None:
    """A change here makes every finished search another one."""
    assert draw(space, *where) == pytest.approx(value, rel=1e-14)


def test_draws_spread_over_their_space() -> None:
    where = ("d", "f", "s", "optimizer.lr")
    logs = [math.log10(draw(LR_SPACE, *where, k)) for k in range(1, 1001)]
    assert min(logs) >= -5
    assert max(logs) <= -3
    assert statistics.mean(logs) == pytest.approx(-4, abs=0.06)
    assert statistics.pstdev(logs) == pytest.approx(2 / math.sqrt(12), abs=0.04)
    picks = [draw(TAU_SPACE, *where, k) for k in range(1, 1001)]
    assert all(130 < picks.count(v) < 205 for v in TAU_SPACE)


def test_learning_rates_are_common_random_numbers() -> None:
    """Trial k has one rate for all strategies and fusions of a data set, but values of its own."""
    cells = [("d", "f", "s"), ("d", "g", "s"), ("d", "f", "t"), ("e", "f", "s")]
    rates = [draw(LR_SPACE, *cell, "optimizer.lr", 1) for cell in cells]
    assert rates[0] == rates[1] == rates[2] != rates[3]
    assert len({draw({"uniform": [0, 1]}, *cell, "strategy.tau", 1) for cell in cells}) == 4


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("budget", ["smoke", "mini", "paper"])
def test_rates_are_searched_around_the_default(optimizer: str, budget: str) -> None:
    """A short budget's range holds the documented rate with room on both sides (for Adam)."""
    composed = compose(f"optimizer={optimizer}", f"budget={budget}")
    low, high = composed["optimizer"]["search"]["lr"]["log_uniform"]
    assert 0 < low < high
    if budget != "paper" and optimizer != "sgd":
        assert low < composed["optimizer"]["lr"] < high <= 20 * low


# Values from records


def test_trial_best_is_the_winner_by_validation(tiny_data: Path, tmp_path: Path) -> None:
    overrides = ("strategy=vanilla",)
    text = refused(tiny_data, tmp_path, *overrides, trial="best")
    assert "no finished run of dataset=tiny fusion=concat strategy=vanilla" in text
    wide = {"optimizer.search.lr": [0.0001, 0.003, 0.05]}
    for trial in range(1, 5):
        run(settings(tiny_data, tmp_path, *overrides, trial=trial, epochs=2, **wide), "test")
    found = load_summaries(tmp_path)
    assert len(found) == 4
    best = max(found, key=lambda s: (s["val"]["fused"]["metric"], -s["trial"]))
    for folder in (tmp_path / "tiny/concat/vanilla").iterdir():  # test numbers have no say
        summary = json.loads((folder / SUMMARY).read_text())
        summary["test"] = {"fused": {"loss": 0.0, "metric": -summary["val"]["fused"]["metric"]}}
        (folder / SUMMARY).write_text(json.dumps(summary))
    chosen = settings(tiny_data, tmp_path, *overrides, trial="best", epochs=2, **wide)
    assert chosen.trial == best["trial"]
    assert chosen.run_id == best["run_id"]
    assert run(chosen, "test").status == "skipped"


def test_rates_from_the_records_of_unimodal_runs(tiny_data: Path, tmp_path: Path) -> None:
    text = refused(tiny_data, tmp_path, "strategy=mslr_k")
    assert "no finished run of dataset=tiny strategy=unimodal_image" in text
    assert "run it first, or set the rates" in text
    scores: dict[str, dict[float, float]] = {}
    for m in ("image", "audio"):
        alone = ("strategy=unimodal", f"strategy.modality={m}")
        for trial, lr in ((1, 0.0003), (2, 0.03)):
            space = {"optimizer.search.lr": [lr]}
            outcome = run(settings(tiny_data, tmp_path, *alone, trial=trial, **space), "test")
            assert outcome.summary is not None
            scores.setdefault(m, {})[lr] = outcome.summary["val"]["fused"]["metric"]
    config = settings(tiny_data, tmp_path, "strategy=mslr_s")
    want = {m: min(found, key=lambda lr: (-found[lr], lr)) for m, found in scores.items()}
    assert config.strategy["rates"] == want
    assert set(want.values()) != {0.0003}  # the higher rate learns more in three epochs
    explicit = settings(tiny_data, tmp_path, *strategy_overrides("mslr_k"))
    assert explicit.strategy["rates"] == {"image": 0.05, "audio": 0.01}
    assert explicit.run_id != settings(tiny_data, tmp_path, "strategy=mslr_k").run_id


def test_the_strong_modality_from_the_records_where_none_is_declared(
    tiny_data: Path, tmp_path: Path
) -> None:
    unknown: dict[str, Any] = {"dataset": "tiny_three", "dataset.strong": None}
    text = refused(tiny_data, tmp_path, "strategy=static_lr", **unknown)
    assert "no finished run of dataset=tiny_three strategy=unimodal_image" in text
    assert "run it first, or set dataset.strong" in text
    scores = {}
    for m in ("image", "audio", "text"):
        one = run(settings(tiny_data, tmp_path, *alone(m), **unknown), "test").summary
        assert one is not None
        scores[m] = one["val"]["fused"]["metric"]
    config = settings(tiny_data, tmp_path, "strategy=static_lr", **unknown)
    assert config.strategy["modality"] == max(scores, key=lambda m: scores[m])
    assert len(set(scores.values())) > 1
    by_hand = {**unknown, "strategy.modality": "audio"}
    config = settings(tiny_data, tmp_path, "strategy=static_lr", **by_hand)
    assert config.strategy["modality"] == "audio"


def alone(modality: str) -> tuple[str, ...]:
    return "strategy=unimodal", f"strategy.modality={modality}"


def test_rates_and_winners_are_those_of_the_asking_runs_protocol(
    tiny_data: Path, tmp_path: Path
) -> None:
    for m in ("image", "audio"):
        run(settings(tiny_data, tmp_path, *alone(m)), "test")
    run(settings(tiny_data, tmp_path, "strategy=vanilla"), "test")
    assert settings(tiny_data, tmp_path, "strategy=mslr_k").strategy["rates"]["image"] == 0.02
    for strategy, trial, cell in (
        ("mslr_k", 0, "tiny concat unimodal_image"),
        ("vanilla", "best", "tiny concat vanilla"),
    ):
        text = refused(tiny_data, tmp_path, f"strategy={strategy}", *SGD, trial=trial)
        assert text.startswith(f"{cell}: none of its 1 finished trials was run like this run")
        assert "optimizer._target_, optimizer.betas, optimizer.momentum" in text
    for other in ({"epochs": 5}, {"batch_size": 4}, {"budget.data_fraction": 0.9}):
        text = refused(tiny_data, tmp_path, "strategy=vanilla", trial="best", **other)
        assert f"different: {next(iter(other))}" in text
    for m in ("image", "audio"):
        run(settings(tiny_data, tmp_path, *alone(m), *SGD, **{"optimizer.lr": 0.3}), "test")
    rates = {
        name: settings(tiny_data, tmp_path, "strategy=mslr_k", *more).strategy["rates"]
        for name, more in (("adam", ()), ("sgd", SGD))
    }
    assert rates == {
        "adam": {"image": 0.02, "audio": 0.02},
        "sgd": {"image": 0.3, "audio": 0.3},
    }


def test_runs_set_by_hand_and_other_seeds_never_win(tiny_data: Path, tmp_path: Path) -> None:
    """Only trials of the search seed choose: not a rate from the command line, not seed 1."""
    for m in ("image", "audio"):
        run(settings(tiny_data, tmp_path, *alone(m), "optimizer.lr=0.05"), "test")
        run(settings(tiny_data, tmp_path, *alone(m), seed=1), "test")
    assert "no finished run" in refused(tiny_data, tmp_path, "strategy=mslr_k")
    for m in ("image", "audio"):
        run(settings(tiny_data, tmp_path, *alone(m), **{"optimizer.lr": 1e-6}), "test")
    config = settings(tiny_data, tmp_path, "strategy=mslr_k")
    assert config.strategy["rates"] == {"image": 1e-6, "audio": 1e-6}


def test_the_winner_is_chosen_on_the_search_seed(tiny_data: Path, tmp_path: Path) -> None:
    """A second seed of every trial, however good, has no say."""
    wide = {"optimizer.search.lr": [1e-6, 0.05]}
    scores = {}
    for trial in (1, 2, 3, 4):
        config = settings(tiny_data, tmp_path, "strategy=vanilla", trial=trial, **wide)
        outcome = run(config, "test")
        assert outcome.summary is not None
        scores[trial] = outcome.summary["val"]["fused"]["metric"]
        other = settings(tiny_data, tmp_path, "strategy=vanilla", trial=trial, seed=1, **wide)
        run(other, "test")
        summary = json.loads((other.run_dir / SUMMARY).read_text())
        summary["val"]["fused"]["metric"] = 1 - scores[trial]
        (other.run_dir / SUMMARY).write_text(json.dumps(summary))
    assert len(set(scores.values())) > 1
    best = min(scores, key=lambda trial: (-scores[trial], trial))
    assert settings(tiny_data, tmp_path, "strategy=vanilla", trial="best", **wide).trial == best
