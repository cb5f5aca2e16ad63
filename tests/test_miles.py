"""MILES: Algorithm 1 and its edge rules."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from miles_repro.miles import conditional_utilization, dominant, lr_factors, utilization_gap

NAN = math.nan


def algorithm_1(
    fused: Fraction, a: Fraction, b: Fraction, tau: Fraction, mu: float
) -> tuple[float, float]:
    """The paper's Algorithm 1 branch by branch, in exact arithmetic."""
    if fused == 0:
        return 1.0, 1.0
    u_a, u_b = (fused - b) / fused, (fused - a) / fused
    delta = abs(u_a - u_b)
    if delta <= tau or (u_a < 0 and u_b < 0):
        return 1.0, 1.0
    if u_a > 0 and u_b < 0:
        return mu, 1.0
    if u_a < 0 and u_b > 0:
        return 1.0, mu
    if u_a < u_b:
        return 1.0, mu
    return mu, 1.0


counts = st.integers(0, 1116)  # accuracies over CREMA-D's 1,116 validation samples


@given(counts, counts, counts, st.integers(0, 120), st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]))
@example(600, 500, 500, 0, 0.5)  # a tie
@example(1000, 600, 300, 30, 0.5)  # delta = tau
@example(500, 600, 500, 0, 0.5)  # one u exactly 0, the other negative
@example(500, 500, 400, 0, 0.5)  # one u exactly 0, the other positive
def test_agrees_with_algorithm_1(fused: int, a: int, b: int, percent: int, mu: float) -> None:
    n = 1116
    found = lr_factors(fused / n, {"a": a / n, "b": b / n}, percent / 100, mu)
    exact = [Fraction(x, n) for x in (fused, a, b)]
    assert tuple(found.values()) == algorithm_1(*exact, Fraction(percent, 100), mu)


@pytest.mark.parametrize(
    "fused, a, b, tau, slowed",
    [
        (0.8, 0.6, 0.4, 0.2, "a"),  # both u positive: the stronger head
        (0.8, 0.4, 0.6, 0.2, "b"),
        (0.5, 0.6, 0.2, 0.2, "a"),  # u_a > 0 > u_b
        (0.5, 0.2, 0.6, 0.2, "b"),
        (0.3, 0.9, 0.4, 0.2, None),  # both u negative: wait until the fused head learns
        (0.3, 0.9, 0.3, 0.2, "a"),  # u_a = 0 > u_b: the printed `else`
        (0.8, 0.6, 0.5, 0.2, None),  # delta below tau
        (1.0, 0.9, 0.6, 0.3, None),  # delta = tau up to rounding (0.30000000000000004)
        (1.0, 0.9, 0.6, 0.29, "a"),
        (0.6, 0.5, 0.5, 0.0, None),  # a tie never acts
        (0.6, 0.0, 0.0, 0.0, None),
        (0.0, 0.4, 0.1, 0.2, None),  # utilization undefined
        (-0.1, 0.4, 0.1, 0.2, None),
        (NAN, 0.4, 0.1, 0.2, None),
        (math.inf, 0.4, 0.1, 0.2, None),
        (0.5, NAN, 0.1, 0.2, None),
        (0.5, 0.4, math.inf, 0.2, None),
        (0.05, 0.4, 0.05, 1.0, "a"),  # delta may exceed 1
    ],
)
def test_edge_rules(fused: float, a: float, b: float, tau: float, slowed: str | None) -> None:
    unimodal = {"a": a, "b": b}
    assert dominant(fused, unimodal, tau) == slowed
    assert lr_factors(fused, unimodal, tau, 0.5) == {
        m: 0.5 if m == slowed else 1.0 for m in unimodal
    }


def test_utilization() -> None:
    # First row of the paper's Fig. 2: 261, 282 and 208 of 1,116 validation clips right.
    unimodal = {"audio": 282 / 1116, "video": 208 / 1116}
    u = conditional_utilization(261 / 1116, unimodal)
    assert {m: round(x, 3) for m, x in u.items()} == {"audio": 0.203, "video": -0.080}
    assert round(utilization_gap(261 / 1116, unimodal), 3) == 0.284
    for bad in (0.0, -1.0, NAN):
        assert all(math.isnan(x) for x in conditional_utilization(bad, unimodal).values())
        assert math.isnan(utilization_gap(bad, unimodal))


@given(
    st.floats(0.01, 1.0),
    st.lists(st.floats(0, 1), min_size=3, max_size=5),
    st.floats(0, 2),
    st.floats(0.01, 1),
)
def test_more_modalities_follow_the_most_distant_pair(
    fused: float, metrics: list[float], tau: float, mu: float
) -> None:
    unimodal = {f"m{i}": x for i, x in enumerate(metrics)}
    factors = lr_factors(fused, unimodal, tau, mu)
    top, bottom = max(unimodal, key=unimodal.__getitem__), min(unimodal, key=unimodal.__getitem__)
    pair = lr_factors(fused, {top: unimodal[top], bottom: unimodal[bottom]}, tau, mu)
    assert factors == {m: pair.get(m, 1.0) if m == top else 1.0 for m in unimodal}
    assert sum(f != 1 for f in factors.values()) <= 1


@given(
    st.integers(0, 100),
    st.lists(st.integers(0, 100), min_size=2, max_size=5),
    st.integers(0, 150),
    st.sampled_from(["max", "min"]),
)
def test_all_pairs_is_the_rule_on_every_pair(
    fused: int, metrics: list[int], tau: int, mode: Any
) -> None:
    unimodal = {f"m{i}": x / 100 for i, x in enumerate(metrics)}
    pairs = [{a: unimodal[a], b: unimodal[b]} for a, b in itertools.combinations(unimodal, 2)]
    slowed = {dominant(fused / 100, pair, tau / 100, mode) for pair in pairs} - {None}
    found = lr_factors(fused / 100, unimodal, tau / 100, 0.5, "all_pairs", mode)
    assert found == {m: 0.5 if m in slowed else 1.0 for m in unimodal}
    largest = lr_factors(fused / 100, unimodal, tau / 100, 0.5, "largest_pair", mode)
    assert {m for m, f in largest.items() if f != 1} <= slowed
    assert bool(slowed) == (min(largest.values()) < 1)  # both rules act in the same epochs


@given(counts, counts, counts, st.integers(0, 120))
@example(600, 500, 400, 0)
def test_losses_mirror_metrics(fused: int, a: int, b: int, percent: int) -> None:
    """M and 2F - M are as far from the fused F, on the other side of it."""
    up = {"a": a / 1116, "b": b / 1116}
    down = {"a": (2 * fused - a) / 1116, "b": (2 * fused - b) / 1116}
    exact = Fraction(abs(a - b)) / fused != Fraction(percent, 100) if fused else True
    if exact:  # equality up to rounding is SLACK's matter
        assert dominant(fused / 1116, up, percent / 100) == dominant(
            fused / 1116, down, percent / 100, "min"
        )


def test_one_modality_is_never_slowed() -> None:
    assert lr_factors(0.5, {"a": 0.9}, 0.0, 0.5) == {"a": 1.0}
