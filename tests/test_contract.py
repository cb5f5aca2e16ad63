"""Every strategy keeps to the contract, under every fusion, task and number of modalities."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import contract
import pytest
import torch
from contract import changed, trained
from rows import rows
from support import FUSIONS, LR, STRATEGIES, home, settings, strategy_overrides

from miles_repro.loop import Fit
from miles_repro.strategies import gblend
from miles_repro.strategy import Strategy

ROWS = rows()
ALONE = [s for s in STRATEGIES if s.startswith("unimodal")]
JOINT = [s for s in STRATEGIES if s not in ALONE]
NEEDS = {s: contract.needs(strategy_overrides(s)) for s in STRATEGIES}
EVERYWHERE = ("vanilla", "vanilla_aux", "miles", "ogm")
"""Strategies that go through every fusion in the fast tests; the others at home, all when slow."""
ACTING = (
    "miles",
    "ogm",
    "mses",
    "gblend",
    "mimo",
    "mslr_d",
    "inforeg",
    "mlb",
    "g2d",
    "umt",
    "pdmp",
)
PRECISE = (*EVERYWHERE, "mmpareto", "mla")
"""Strategies that run in both precisions in the fast tests."""


def with_fusion(strategy: str, fusion: str, *values: Any) -> Any:
    """A case of a test, slow where another one stands for it in the fast tests."""
    quick = strategy in EVERYWHERE or fusion == home(strategy)
    return pytest.param(strategy, fusion, *values, marks=() if quick else pytest.mark.slow)


COMBINATIONS = [
    with_fusion(s, f) for s in JOINT for f in FUSIONS if (n := NEEDS[s].fusions) is None or f in n
] + [with_fusion(s, "concat") for s in ALONE]


def test_every_strategy_has_its_row_and_every_row_its_strategy() -> None:
    assert sorted(ROWS) == STRATEGIES


@pytest.mark.parametrize("strategy, fusion", COMBINATIONS)
def test_trains_and_resumes_to_the_same_bits(
    strategy: str, fusion: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = strategy_overrides(strategy, fusion)
    contract.check_resumes(overrides, ROWS[strategy], tiny_data, tmp_path, monkeypatch)


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
    contract.check_data_set(
        dataset, strategy_overrides(strategy), ROWS[strategy], tiny_data, tmp_path
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_row_s_prediction_does_not_depend_on_its_batch(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    contract.check_rows_stand_alone(strategy_overrides(strategy), tiny_data, tmp_path)


# --- who may be touched -----------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [s for s in ROWS if ROWS[s].touches is not None])
def test_first_step_touches_its_own_groups_only(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    row = ROWS[strategy]
    like = strategy_overrides(row.like)
    contract.check_touches(strategy_overrides(strategy), row, like, tiny_data, tmp_path)


@pytest.mark.parametrize("heads_follow", [True, False])
def test_miles_second_epoch_touches_the_dominant_modality_only(
    heads_follow: bool, tiny_data: Path, tmp_path: Path
) -> None:
    def two_steps(name: str) -> tuple[list[dict[str, Any]], Fit]:
        values = {"batch_size": 26, "epochs": 2, "seed": 1}  # in which the rule acts
        if name == "miles":
            values |= {"strategy.heads_follow": heads_follow, "strategy.tau": 0.01}
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

    overrides, like = (strategy_overrides(s, fusion) for s in (strategy, reference))
    contract.check_neutral(overrides, values, like, tiny_data, tmp_path)


@pytest.mark.parametrize("strategy", ACTING)
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
    [pytest.param(s, marks=() if s in PRECISE else pytest.mark.slow) for s in STRATEGIES],
)
def test_mixed_precision_trains(
    strategy: str, precision: str, tiny_data: Path, tmp_path: Path
) -> None:
    overrides = (f"precision={precision}", *strategy_overrides(strategy))
    rows, fit = trained(settings(tiny_data, tmp_path, *overrides))
    assert all(math.isfinite(row["val"]["fused"]["loss"]) for row in rows)
    if ROWS[strategy].learns:
        assert rows[-1]["train"]["fused"]["loss"] < rows[0]["train"]["fused"]["loss"]
    assert (fit.ctx.scaler is not None) == (precision == "fp16")
    assert {p.dtype for p in fit.model.parameters()} == {torch.float32}


def test_a_misspelt_hook_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"on_epoch_ended is not a hook .* on_epoch_end, "):
        type("Typo", (Strategy,), {"on_epoch_ended": lambda self, ctx: None})
    type("Fine", (Strategy,), {"on_epoch_end": lambda self, ctx, train, val: None})
