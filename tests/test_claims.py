"""Verdicts: each claim on numbers made to support it, to refute it, or to leave it open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from record_factory import ablation, population, record

from miles_repro.paper import PAPER_ROWS
from miles_repro.report.checks import NOT, OPEN, UNRUN, YES, Finding, Part, combined
from miles_repro.report.claims import CLAIMS, judge, paper_verdict
from miles_repro.report.provenance import Origin
from miles_repro.selection import studies

Levels = Mapping[str, tuple[float, float, float]]
FUSIONS = ("concat", "sum")
# Noise per seed, the same for all strategies plus a little of their own: pairs are close.
WOBBLE = (0.000, 0.004, -0.003, 0.002)
OWN = (0.0004, -0.0003, 0.0002, -0.0001)


def runs(
    levels: Levels, dataset: str = "smnist_mini", budget: str = "mini", seeds: int = 8, **same: Any
) -> list[dict[str, Any]]:
    """Every strategy at its (fused, strong, weak) level, with seed noise that pairs well."""
    found = []
    for i, (strategy, level) in enumerate(levels.items()):
        for fusion in FUSIONS:
            for seed in range(1, seeds + 1):
                shift = WOBBLE[seed % 4] + OWN[(seed + i) % 4] * (1 + i / 9)
                # The gap needs noise of its own, or it would be equal in all seeds.
                numbers = (level[0] + shift, level[1] + shift, level[2] + shift * 0.9)
                found.append(
                    record(
                        strategy,
                        dataset=dataset,
                        budget=budget,
                        fusion=fusion,
                        seed=seed,
                        noise=0,
                        level=numbers,
                        **same,
                    )
                )
    return found


def verdict(claim: str, records: Sequence[Mapping[str, Any]]) -> str:
    (found,) = [j for j in judge(studies(records)) if j.claim.name == claim]
    return found.verdict


def all_rows(miles: tuple[float, float, float], rest: tuple[float, float, float]) -> Levels:
    return {name: miles if name == "miles" else rest for name in PAPER_ROWS}


BETTER = all_rows((0.95, 0.90, 0.85), (0.90, 0.88, 0.70))
WORSE = all_rows((0.90, 0.88, 0.70), (0.95, 0.90, 0.85))
EQUAL = all_rows((0.93, 0.90, 0.80), (0.93, 0.90, 0.80))


@pytest.mark.parametrize("claim", ["best_fused", "smallest_gap", "stronger_encoders"])
@pytest.mark.parametrize("levels, expected", [(BETTER, YES), (WORSE, NOT), (EQUAL, OPEN)])
def test_claims_about_the_nine_rows(claim: str, levels: Levels, expected: str) -> None:
    assert verdict(claim, runs(levels)) == expected


def test_one_better_rival_refutes() -> None:
    levels = {**BETTER, "gblend": (0.97, 0.91, 0.86)}
    assert verdict("best_fused", runs(levels)) == NOT
    assert verdict("stronger_encoders", runs(levels)) == NOT


def test_one_equal_rival_leaves_it_open() -> None:
    levels = {**BETTER, "gblend": BETTER["miles"]}
    assert verdict("best_fused", runs(levels)) == OPEN


def test_a_missing_row_prevents_support_but_not_refutation() -> None:
    part = {k: v for k, v in BETTER.items() if k != "mses"}
    assert verdict("best_fused", runs(part)) == UNRUN
    part = {k: v for k, v in WORSE.items() if k != "mses"}
    assert verdict("best_fused", runs(part)) == NOT


def test_one_seed_decides_nothing() -> None:
    for levels in (BETTER, WORSE):
        for claim in ("best_fused", "smallest_gap", "stronger_encoders", "scheduling"):
            assert verdict(claim, runs(levels, seeds=1)) in (OPEN, UNRUN)


def test_both_fusions_must_agree() -> None:
    records = [r for r in runs(BETTER) if r["fusion"] == "concat"]
    assert verdict("best_fused", records) == UNRUN
    records += [r for r in runs(EQUAL) if r["fusion"] == "sum"]
    assert verdict("best_fused", records) == OPEN


def test_a_stronger_weak_head_does_not_excuse_a_weaker_strong_head() -> None:
    levels = all_rows((0.95, 0.85, 0.85), (0.90, 0.88, 0.70))
    assert verdict("stronger_encoders", runs(levels)) == NOT


def controls(miles: float, static: float) -> Levels:
    return {
        "miles": (miles, 0.9, miles - 0.1),
        "vanilla_aux": (0.93, 0.9, 0.83),
        "static_lr": (static, 0.9, static - 0.1),
        "random_lr": (0.93, 0.9, 0.83),
    }


@pytest.mark.parametrize("claim", ["scheduling", "scheduling_weak_head"])
@pytest.mark.parametrize(
    "levels, expected",
    [
        (controls(0.96, 0.93), YES),
        (controls(0.96, 0.96), OPEN),
        (controls(0.93, 0.97), NOT),
        ({k: v for k, v in controls(0.96, 0.93).items() if k != "random_lr"}, UNRUN),
    ],
)
def test_scheduling_is_judged_against_the_controls(
    claim: str, levels: Levels, expected: str
) -> None:
    assert verdict(claim, runs(levels)) == expected


def test_auxiliary_losses_are_judged_against_vanilla() -> None:
    levels = {"vanilla": (0.9, 0.8, 0.6), "vanilla_aux": (0.9, 0.8, 0.7)}
    assert verdict("auxiliary_losses", runs(levels)) == YES
    levels = {"vanilla_aux": (0.9, 0.8, 0.6), "vanilla": (0.9, 0.8, 0.7)}
    assert verdict("auxiliary_losses", runs(levels)) == NOT


def alone(strong: float, weak: float) -> list[dict[str, Any]]:
    return [
        record(name, seed=seed, noise=0, level=level)
        for seed in range(1, 9)
        for name, level in (
            ("unimodal_image", (strong + OWN[seed % 4], strong + OWN[seed % 4], None)),
            ("unimodal_audio", (weak + OWN[seed % 4], None, weak + OWN[seed % 4])),
        )
    ]


@pytest.mark.parametrize("distance, expected", [(0.02, YES), (0.08, NOT), (0.034, OPEN)])
def test_distance_from_unimodal_models(distance: float, expected: str) -> None:
    miles = [r for r in runs({"miles": (0.95, 0.9, 0.8)}) if r["fusion"] == "concat"]
    found = judge(studies(miles + alone(0.9 + distance, 0.8 + distance)))
    (near,) = [j for j in found if j.claim.name == "near_unimodal"]
    assert near.findings["concat"].verdict == expected
    assert near.findings["sum"].verdict == UNRUN


TAU = (0.0, 0.1, 0.2, 0.3, 0.5)
MU = (0.1, 0.25, 0.5, 0.75, 1.0)


def test_sensitivity_with_the_papers_shape() -> None:
    assert verdict("tau", ablation("tau", TAU, seeds=range(1, 13))) == YES
    assert verdict("mu", ablation("mu", MU, seeds=range(1, 13))) == YES


def test_sensitivity_the_other_way_round() -> None:
    # `ablation` lets the strong head rise along the order given.
    assert verdict("tau", ablation("tau", TAU[::-1], seeds=range(1, 13))) == NOT


def test_sensitivity_without_a_fall_at_one_end() -> None:
    records = ablation("tau", TAU, seeds=range(1, 13))
    for run in records:
        if run["config"]["strategy"]["tau"] == 0.5:
            run["test"]["fused"]["metric"] = 0.995 + run["seed"] / 1e4
    assert verdict("tau", records) == NOT


def test_sensitivity_needs_the_middle_and_both_ends() -> None:
    assert verdict("tau", ablation("tau", (0.0, 0.1, 0.3, 0.5))) == UNRUN
    assert verdict("mu", ablation("mu", (0.25, 0.5, 1.0))) == UNRUN
    assert verdict("tau", ablation("tau", TAU, seeds=[1])) == OPEN


def by_source(train: float, later: int, spread: float = 1.0) -> list[dict[str, Any]]:
    found = []
    for fusion in FUSIONS:
        for seed in range(1, 9):
            same: dict[str, Any] = {"fusion": fusion, "seed": seed, "noise": 0}
            shift = WOBBLE[seed % 4]
            val = record(level=(0.95 + shift, 0.9, 0.8), best_epoch=40 + seed, **same)
            other = record(
                level=(train + shift + spread * OWN[seed % 4], 0.9, 0.8),
                best_epoch=40 + seed + later + seed % 2,
                strategy_values={"source": "train"},
                **same,
            )
            found += [val, other]
    return found


@pytest.mark.parametrize(
    "train, later, expected",
    [(0.95, 6, YES), (0.95, -6, NOT), (0.92, 6, NOT), (0.95, -1, OPEN)],
)
def test_source_needs_equal_metrics_and_a_later_best_epoch(
    train: float, later: int, expected: str
) -> None:
    assert verdict("source", by_source(train, later)) == expected


def test_source_is_open_where_seeds_scatter_beyond_the_margin() -> None:
    assert verdict("source", by_source(0.95, 6, spread=50.0)) == OPEN


def test_the_papers_own_scope_needs_its_data_sets_at_its_budget() -> None:
    claim = CLAIMS[0]
    names = ("cremad", "smnist", "luma", "mmimdb")
    records = [r for name in names for r in runs(BETTER, dataset=name, budget="paper")]
    origin = Origin("", "")
    assert paper_verdict(claim, judge(studies(records)), origin) == YES
    part = [r for r in records if r["dataset"] != "luma"]
    assert paper_verdict(claim, judge(studies(part)), origin) == UNRUN
    stand_in = Origin("", "", frozenset({"luma"}))
    assert paper_verdict(claim, judge(studies(records)), stand_in) == UNRUN
    mini = [{**r, "budget": "mini"} for r in records]
    assert paper_verdict(claim, judge(studies(mini)), origin) == UNRUN


def finding(support: float, against: float, *missing: str) -> Finding:
    return Finding([Part("x", [1.0], support, against)], missing, "")


def test_cells_join_into_one_test() -> None:
    assert combined([finding(0.01, 1.0), finding(0.04, 1.0)]) == YES
    assert combined([finding(0.01, 1.0), finding(0.06, 1.0)]) == OPEN
    # Contradiction is corrected over all parts of all cells.
    assert combined([finding(1.0, 0.03)]) == NOT
    assert combined([finding(1.0, 0.03), finding(1.0, 1.0)]) == OPEN
    assert combined([finding(0.01, 1.0), finding(0.01, 1.0, "a row")]) == UNRUN
    assert combined([finding(1.0, 0.01, "a row")]) == NOT
    assert combined([Finding([], [], "")]) == UNRUN


def test_a_strong_head_a_little_worse_contradicts_nothing() -> None:
    # 0.3 points below on the strong side lies within the margin that support allows.
    levels = all_rows((0.95, 0.877, 0.85), (0.90, 0.88, 0.70))
    assert verdict("stronger_encoders", runs(levels)) == YES


def test_two_errors_do_not_cancel_in_the_distance_from_unimodal_models() -> None:
    miles = [r for r in runs({"miles": (0.95, 0.9, 0.8)}) if r["fusion"] == "concat"]
    (near,) = [
        j for j in judge(studies(miles + alone(1.0, 0.7))) if j.claim.name == "near_unimodal"
    ]
    assert near.findings["concat"].verdict == NOT


def test_heads_are_judged_by_probes() -> None:
    found = runs({"vanilla": (0.9, 0.8, 0.5), "vanilla_aux": (0.9, 0.8, 0.8)})
    assert verdict("auxiliary_losses", found) == YES
    for run in found:  # the probes say otherwise
        value = 0.7 if run["strategy"] == "vanilla_aux" else 0.75
        run["instruments"]["probe"]["test"]["audio"]["metric"] = value + run["seed"] / 1e4
    assert verdict("auxiliary_losses", found) == NOT


def test_the_search_seed_decides_nothing() -> None:
    found = runs(BETTER)
    for run in found:
        if run["seed"] == 1:
            run["seed"] = 0
            run["test"]["fused"]["metric"] = 0.1 if run["strategy"] == "miles" else 0.99
    assert verdict("best_fused", found) == YES


def test_a_diverged_run_counts() -> None:
    found = runs(BETTER)
    assert verdict("best_fused", found) == YES
    for run in found:
        if run["strategy"] == "miles" and run["seed"] == 3:
            run["status"] = "diverged"
            run["test"]["fused"]["metric"] = 0.1
    assert verdict("best_fused", found) == OPEN


def test_every_claim_says_how_it_is_decided_and_shows_numbers() -> None:
    judgements = judge(studies(population() + ablation("tau", TAU)))
    assert {j.claim.name for j in judgements} == {claim.name for claim in CLAIMS}
    for judgement in judgements:
        assert len(judgement.claim.test) > 20
        for finding in judgement.findings.values():
            assert finding.verdict in (YES, NOT, OPEN, UNRUN)
            if finding.verdict in (YES, NOT, OPEN):
                assert any(character.isdigit() for character in finding.numbers)
