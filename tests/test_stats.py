"""Seed statistics against scipy and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from miles_repro.stats import (
    BOOTSTRAP_MIN,
    average_ranks,
    bootstrap_ci,
    holm,
    mean_ci,
    nemenyi_cd,
    paired,
)

SAMPLE = [96.1, 97.0, 95.4, 96.6, 96.9]
OTHER = [95.9, 96.2, 95.6, 96.0, 95.8]
by_seed = dict(enumerate(SAMPLE))
other_by_seed = dict(enumerate(OTHER))


def test_interval_is_scipys_t_interval() -> None:
    found = mean_ci(SAMPLE)
    low, high = scipy_stats.t.interval(0.95, 4, np.mean(SAMPLE), scipy_stats.sem(SAMPLE))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.half == pytest.approx((high - low) / 2)
    assert (found.mean, found.n) == (pytest.approx(np.mean(SAMPLE)), 5)


@pytest.mark.parametrize("values", [[97.0], [97.0, 97.0], [0.1 + 0.2, 0.3]])
def test_no_interval_without_spread(values: list[float]) -> None:
    found = mean_ci(values)
    assert (found.low, found.high, found.half, found.n) == (None, None, None, len(values))
    assert found.contains(values[0]) is None


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_interval_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="value"):
        mean_ci(values)


def test_interval_contains_its_ends() -> None:
    found = mean_ci(SAMPLE)
    assert found.low is not None
    assert found.contains(found.low)
    assert found.contains(found.mean)
    assert not found.contains(found.low - 0.01)


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(5.0, 2.0, (2000, 4))
    covered = sum(bool(mean_ci(row.tolist()).contains(5.0)) for row in draws)
    # Binomial with p = 0.95: four standard deviations are 39.
    assert abs(covered - 1900) < 39


def test_paired_t_and_wilcoxon_are_scipys() -> None:
    a = dict(enumerate([*SAMPLE, 96.3, 97.3]))
    b = dict(enumerate([*OTHER, 96.4, 95.7]))
    found = paired(a, b)
    assert found is not None
    x, y = np.array(list(a.values())), np.array(list(b.values()))
    assert found.p == pytest.approx(scipy_stats.ttest_rel(x, y).pvalue)
    assert found.wilcoxon == pytest.approx(scipy_stats.wilcoxon(np.round(x - y, 9)).pvalue)
    assert found.difference.mean == pytest.approx((x - y).mean())


def test_pairs_are_the_shared_seeds() -> None:
    found = paired({0: 1.0, 1: 2.0, 2: 4.0, 7: 100.0}, {0: 0.0, 1: 1.5, 2: 2.0, 9: -100.0})
    assert found is not None
    assert found.n == 3
    assert found.difference.mean == pytest.approx((1.0 + 0.5 + 2.0) / 3)
    assert paired({0: 1.0}, {1: 1.0}) is None


def test_wilcoxon_only_where_it_could_ever_reject() -> None:
    five = paired(by_seed, other_by_seed)
    assert five is not None
    assert five.wilcoxon is None
    six = paired({**by_seed, 5: 97.0}, {**other_by_seed, 5: 95.0})
    assert six is not None
    assert six.wilcoxon is not None


def test_no_test_on_one_pair_or_on_equal_differences() -> None:
    one = paired({0: 2.0}, {0: 1.0})
    equal = paired({0: 0.3, 1: 1.3}, {0: 0.2, 1: 1.2})
    same = paired(by_seed, by_seed)
    assert one is not None
    assert equal is not None
    assert same is not None
    assert (one.p, equal.p, same.p) == (None, None, 1.0)


def test_holm_equals_statsmodels() -> None:
    # multipletests(p, method="holm") of statsmodels gave these.
    p = [0.01, 0.04, 0.03, 0.005, 0.2, 0.04]
    assert holm(p) == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.2, 0.12])
    assert holm([0.01, None, 0.04]) == [pytest.approx(0.02), None, pytest.approx(0.04)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_properties(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, new in zip(p, adjusted, strict=True):
        assert new is not None
        assert raw <= new <= min(1.0, len(p) * raw + 1e-12)
    order = sorted(range(len(p)), key=lambda i: p[i])
    sorted_new = [adjusted[i] for i in order]
    assert sorted_new == sorted(sorted_new)  # type: ignore[type-var]


def test_nemenyi_distance_from_demsars_table() -> None:
    # Demsar, JMLR 7 (2006), table 5a: q at 0.05 for 2 to 10 methods.
    table = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for methods, q in enumerate(table, start=2):
        root = math.sqrt(methods * (methods + 1) / (6 * 14))
        assert nemenyi_cd(methods, 14) == pytest.approx(q * root, abs=1e-3)


def test_ranks_with_ties_and_friedman() -> None:
    scores = {
        "a": [0.9, 0.8, 0.7, 0.9],
        "b": [0.9, 0.7, 0.8, 0.6],
        "c": [0.1, 0.2, 0.3, 0.4],
    }
    found = average_ranks(scores)
    assert found is not None
    assert found.average == {"a": 1.375, "b": 1.625, "c": 3.0}
    assert found.per_block["a"] == [1.5, 1.0, 2.0, 1.0]
    assert found.blocks == 4
    expected = scipy_stats.friedmanchisquare(*scores.values()).pvalue
    assert found.friedman_p == pytest.approx(expected)


def test_ranks_need_three_methods_and_two_blocks() -> None:
    assert average_ranks({"a": [1.0, 2.0], "b": [2.0, 1.0]}) is None
    assert average_ranks({"a": [1.0], "b": [2.0], "c": [3.0]}) is None
    level = average_ranks({"a": [1.0, 1.0], "b": [1.0, 1.0], "c": [1.0, 1.0]})
    assert level is not None
    assert (level.friedman_p, set(level.average.values())) == (1.0, {2.0})


def test_bootstrap_is_scipys_and_honours_its_seed() -> None:
    values = np.random.default_rng(3).normal(1.0, 1.0, 12).tolist()
    found = bootstrap_ci(values, random_state=5, resamples=999)
    expected = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(5)
    ).confidence_interval
    assert (found.low, found.high) == (expected.low, expected.high)
    assert found == bootstrap_ci(values, random_state=5, resamples=999)
    assert found.low != bootstrap_ci(values, random_state=6, resamples=999).low


def test_bootstrap_gives_no_interval_where_it_would_lie() -> None:
    few = [float(i) for i in range(BOOTSTRAP_MIN - 1)]
    assert bootstrap_ci(few, random_state=0).low is None
    assert bootstrap_ci([2.0] * BOOTSTRAP_MIN, random_state=0).low is None
