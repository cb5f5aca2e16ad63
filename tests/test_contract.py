"""What every strategy keeps to under every fusion, task and number of modalities."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from rows import rows
from support import (
    FUSIONS,
    LR,
    STRATEGIES,
    build_fit,
    compose,
    home,
    lasting,
    parameters,
    rows_without_time,
    same_tensors,
    settings,
    strategy_overrides,
)

from miles_repro import run as running
from miles_repro.config import Config, build
from miles_repro.errors import UserError
from miles_repro.loop import Fit
from miles_repro.records import LAST
from miles_repro.run import run
from miles_repro.strategies import gblend
from miles_repro.strategy import Needs, Strategy

ROWS = rows()
ALONE = [s for s in STRATEGIES if s.startswith("unimodal")]
JOINT = [s for s in STRATEGIES if s not in ALONE]


def needs(strategy: str) -> Needs:
    """What the strategy says of itself."""
    found = build(compose(*strategy_overrides(strategy))["strategy"]).needs
    assert isinstance(found, Needs)
    return found


NEEDS = {s: needs(s) for s in STRATEGIES}
EVERYWHERE = ("vanilla", "vanilla_aux", "miles", "ogm")
"""Strategies that go through every fusion in the fast tests; the others at home, all when slow."""


def with_fusion(strategy: str, fusion: str, *values: Any) -> Any:
    """A case of a test, slow where another one stands for it in the fast tests."""
    quick = strategy in EVERYWHERE or fusion == home(strategy)
    return pytest.param(strategy, fusion, *values, marks=() if quick else pytest.mark.slow)


COMBINATIONS = [
    with_fusion(s, f) for s in JOINT for f in FUSIONS if (n := NEEDS[s].fusions) is None or f in n
] + [with_fusion(s, "concat") for s in ALONE]


class Interrupted(Exception):
    """Stands for a kill, a time limit, a full disk."""


def interrupt_after(run_id: str, epoch: int) -> Callable[[Config, dict[str, Any]], None]:
    def report(config: Config, row: dict[str, Any]) -> None:
        if config.run_id == run_id and row["epoch"] == epoch:  # its teachers are left alone
            raise Interrupted

    return report


def trained(config: Config) -> tuple[list[dict[str, Any]], Fit]:
    fit = build_fit(config)
    return list(fit.epochs()), fit


@pytest.mark.parametrize("strategy, fusion", COMBINATIONS)
def test_trains_and_resumes_to_the_same_bits(
    strategy: str, fusion: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "SAVE_EVERY_S", 0.0, raising=False)
    overrides = strategy_overrides(strategy, fusion)
    whole = settings(tiny_data, tmp_path / "whole", *overrides)
    cut = settings(tiny_data, tmp_path / "cut", *overrides)
    assert whole.run_id == cut.run_id
    expected = run(whole, "test").summary
    assert expected is not None
    last = 1 + zlib.crc32(f"{strategy} {fusion}".encode()) % min(2, expected["epochs_run"])
    with pytest.raises(Interrupted):
        run(cut, "test", interrupt_after(cut.run_id, last))
    assert (cut.run_dir / LAST).exists()
    found = run(cut, "test").summary
    assert found is not None
    rows = rows_without_time(whole.run_dir)
    assert rows == rows_without_time(cut.run_dir)
    assert lasting(expected) == lasting(found)
    assert not (cut.run_dir / LAST).exists()
    if ROWS[strategy].learns:
        losses = [row["train"]["fused"]["loss"] for row in rows]
        assert min(losses[1:]) < losses[0]


@pytest.mark.parametrize("strategy", ALONE)
def test_one_modality_is_the_same_run_under_every_fusion(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    configs = [settings(tiny_data, tmp_path, *strategy_overrides(strategy, f)) for f in FUSIONS]
    assert {c.fusion["name"] for c in configs} == {"concat"}
    assert len({c.run_dir for c in configs}) == 1
    assert [n for n in configs[0].run_dir.parts if n.startswith("unimodal_")] == ["unimodal_audio"]


@pytest.mark.parametrize("dataset", ["tiny_three", "tiny_labels"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_modalities_and_many_labels(
    strategy: str, dataset: str, tiny_data: Path, tmp_path: Path
) -> None:
    """Trains, or is refused with the reason while composing, as its needs say."""
    config = settings(
        tiny_data,
        tmp_path,
        *strategy_overrides(strategy, home(strategy)),
        dataset=dataset,
        **ROWS[strategy].values.get(dataset, {}),
    )
    most, tasks = NEEDS[strategy].max_modalities, NEEDS[strategy].tasks
    if dataset == "tiny_three" and most is not None and most < 3:
        with pytest.raises(UserError, match="modalities"):
            running.check(config)
        return
    if dataset == "tiny_labels" and tasks is not None and "multilabel" not in tasks:
        with pytest.raises(UserError, match="not defined for multilabel"):
            running.check(config)
        return
    rows, fit = trained(config)
    used = ["image", "audio", "text"] if dataset == "tiny_three" else ["image", "audio"]
    if strategy in ALONE:
        used = ["audio"]
    assert fit.ctx.modalities == used
    for row in rows:
        assert list(row["val"]) == ["fused", *used]
        assert all(math.isfinite(s["loss"]) for s in row["val"].values())
        if dataset == "tiny_labels":
            averages = {"f1_micro", "f1_macro", "f1_weighted", "f1_samples"}
            assert averages < row["val"]["fused"].keys()
            assert row["val"]["fused"]["metric"] == row["val"]["fused"]["f1_micro"]
    if ROWS[strategy].learns:
        assert rows[-1]["train"]["fused"]["loss"] < rows[0]["train"]["fused"]["loss"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_row_s_prediction_does_not_depend_on_its_batch(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides(strategy, home(strategy)))
    _, fit = trained(config)
    whole = fit.ctx.observe("val").logits
    for row in (0, 5):
        alone = fit.ctx.observe("val", torch.tensor([row])).logits
        for head, logits in alone.items():
            torch.testing.assert_close(logits[0], whole[head][row], atol=1e-5, rtol=1e-4)


# --- who may be touched -----------------------------------------------------------------------


def changed(a: Fit, b: Fit) -> set[str]:
    """Parts whose parameters or buffers differ."""
    return {p for p in a.model.parts() if not same_tensors(parameters(a, [p]), parameters(b, [p]))}


@pytest.mark.parametrize("strategy", [s for s in ROWS if ROWS[s].touches is not None])
def test_first_step_touches_its_own_groups_only(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    reference, allowed = ROWS[strategy].like, ROWS[strategy].touches
    assert allowed is not None
    step = {"batch_size": 26, "epochs": 1}

    def one_step(name: str) -> Fit:
        overrides = ("optimizer=sgd", *strategy_overrides(name))
        return trained(settings(tiny_data, tmp_path, *overrides, **step))[1]

    start = build_fit(settings(tiny_data, tmp_path, *strategy_overrides(reference), **step))
    expected, found = one_step(reference), one_step(strategy)
    assert changed(expected, start) == set(start.model.parts())
    assert changed(found, expected) in allowed


def test_every_strategy_has_its_row_and_every_row_its_strategy() -> None:
    assert sorted(ROWS) == STRATEGIES


@pytest.mark.parametrize("heads_follow", [True, False])
def test_miles_second_epoch_touches_the_dominant_modality_only(
    heads_follow: bool, tiny_data: Path, tmp_path: Path
) -> None:
    def two_steps(name: str) -> tuple[list[dict[str, Any]], Fit]:
        values = {"batch_size": 26, "epochs": 2}
        if name == "miles":
            values["strategy.heads_follow"] = heads_follow
        overrides = ("optimizer=sgd", *strategy_overrides(name))
        return trained(settings(tiny_data, tmp_path, *overrides, **values))

    (rows, found), (_, expected) = two_steps("miles"), two_steps("vanilla_aux")
    heads = {m: rows[0]["val"][m]["metric"] for m in ("image", "audio")}
    slowed = max(heads, key=heads.__getitem__)
    assert rows[0]["utilization"]["delta"] > 0
    groups = {f"encoder.{slowed}", f"head.{slowed}"} if heads_follow else {f"encoder.{slowed}"}
    assert changed(found, expected) == groups
    assert {g for g, lr in rows[1]["lr"].items() if lr != LR} == groups


# --- neutral hyper-parameters -----------------------------------------------------------------

NEUTRAL = [(s, dict(v), r) for s, row in ROWS.items() for v, r in row.neutral]
NEUTRAL.append(("gblend", {}, "vanilla"))  # with the weights 1, 0, 0


@pytest.mark.parametrize(
    "strategy, fusion, values, reference",
    [with_fusion(s, f, v, r) for s, v, r in NEUTRAL for f in FUSIONS],
    ids=[f"{s}-{'-'.join(k.split('.')[1] for k in v)}-{f}" for s, v, _ in NEUTRAL for f in FUSIONS],
)
def test_neutral_hyperparameters_are_vanilla_bit_for_bit(
    strategy: str,
    values: dict[str, Any],
    reference: str,
    fusion: str,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if fusion not in (NEEDS[strategy].fusions or FUSIONS):
        pytest.skip("not defined for this fusion")
    monkeypatch.setattr(
        gblend, "blend_weights", lambda curves, rule: {k: float(k == "fused") for k in curves}
    )

    def trajectory(name: str, **values: Any) -> tuple[list[dict[str, Any]], Fit]:
        return trained(settings(tiny_data, tmp_path, *strategy_overrides(name, fusion), **values))

    (rows, fit), (expected, plain) = trajectory(strategy, **values), trajectory(reference)
    shared = list(plain.model.parts())
    assert same_tensors(parameters(fit, shared), parameters(plain, shared))
    alike = fit.model.heads.keys() == plain.model.heads.keys() and (
        type(fit.strategy).unimodal is type(plain.strategy).unimodal
    )
    heads = list(expected[0]["val"]) if alike else []
    for mine, theirs in zip(rows, expected, strict=True):
        for head in heads or ["fused"]:
            assert mine["train"][head] == theirs["train"][head]
            assert mine["val"][head] == theirs["val"][head]
        assert {g: mine["lr"][g] for g in theirs["lr"]} == theirs["lr"]


@pytest.mark.parametrize(
    "strategy",
    ["miles", "ogm", "mses", "gblend", "mimo", "mslr_d", "inforeg", "mlb", "g2d", "umt", "pdmp"],
)
def test_the_settings_used_here_do_act(strategy: str, tiny_data: Path, tmp_path: Path) -> None:
    """Else the resume tests above would prove nothing about a strategy's state."""
    reference = ROWS[strategy].like
    fits = [
        trained(settings(tiny_data, tmp_path, *strategy_overrides(s)))[1]
        for s in (strategy, reference)
    ]
    assert changed(fits[0], fits[1])


# --- precision ------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(s, marks=() if s in (*EVERYWHERE, "mmpareto", "mla") else pytest.mark.slow)
        for s in STRATEGIES
    ],
)
def test_mixed_precision_trains(
    strategy: str, precision: str, tiny_data: Path, tmp_path: Path
) -> None:
    overrides = (f"precision={precision}", *strategy_overrides(strategy, home(strategy)))
    rows, fit = trained(settings(tiny_data, tmp_path, *overrides))
    assert all(math.isfinite(row["val"]["fused"]["loss"]) for row in rows)
    if ROWS[strategy].learns:
        assert rows[-1]["train"]["fused"]["loss"] < rows[0]["train"]["fused"]["loss"]
    assert (fit.ctx.scaler is not None) == (precision == "fp16")
    assert {p.dtype for p in fit.model.parameters()} == {torch.float32}


# --- refusals ---------------------------------------------------------------------------------


class LinearOnly(Strategy):
    """A strategy defined for linear fusions of one label a sample."""

    needs: ClassVar[Needs] = Needs(fusions=frozenset({"concat", "sum"}), tasks=frozenset({"x"}))


@pytest.mark.parametrize(
    "dataset, overrides, words",
    [
        ("tiny_three", ("fusion=film",), ("fusion film", "2 modalities", "3 (image, audio, text)")),
        ("tiny_three", ("fusion=gated",), ("fusion gated", "tiny_three")),
        (
            "tiny",
            ("fusion=film", "strategy._target_=test_contract.LinearOnly"),
            ("strategy linear", "not defined for fusion=film", "concat, sum"),
        ),
        (
            "tiny",
            ("fusion=sum", "strategy._target_=test_contract.LinearOnly"),
            ("strategy linear", "not defined for multiclass data sets such as tiny"),
        ),
        (
            "tiny",
            ("strategy=unimodal", "strategy.modality=smell"),
            ("strategy unimodal_smell", "'smell' is not one of ['image', 'audio']"),
        ),
    ],
)
def test_undefined_combinations_are_refused_with_the_reason(
    dataset: str,
    overrides: tuple[str, ...],
    words: tuple[str, ...],
    tiny_data: Path,
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    if any("LinearOnly" in o for o in overrides):
        overrides = ("strategy=vanilla", "strategy.name=linear", *overrides)
    config = settings(tiny_data, runs, *overrides, dataset=dataset)
    with pytest.raises(UserError) as refusal:
        run(config, "test")
    text = str(refusal.value)
    assert all(word in text for word in words), text
    assert "\n" not in text
    assert not runs.exists()  # before anything was begun


def test_a_misspelt_hook_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"on_epoch_ended is not a hook .* on_epoch_end, "):
        type("Typo", (Strategy,), {"on_epoch_ended": lambda self, ctx: None})
    type("Fine", (Strategy,), {"on_epoch_end": lambda self, ctx, train, val: None})
