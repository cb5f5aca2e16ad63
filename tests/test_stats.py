"""Seed statistics against scipy and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from miles_repro.stats import (
    BOOTSTRAP_MIN,
    average_ranks,
    bootstrap_ci,
    mean_ci,
    nemenyi_cd,
    predict,
)

SAMPLE = [96.1, 97.0, 95.4, 96.6, 96.9]


def test_interval_is_scipys_t_interval() -> None:
    found = mean_ci(SAMPLE)
    low, high = scipy_stats.t.interval(0.95, 4, np.mean(SAMPLE), scipy_stats.sem(SAMPLE))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.half == pytest.approx((high - low) / 2)
    assert (found.mean, found.n) == (pytest.approx(np.mean(SAMPLE)), 5)


@pytest.mark.parametrize(
    "values", [[97.0], [97.0, 98.0], [97.0, 97.0, 97.0], [0.1 + 0.2, 0.3, 0.3]]
)
def test_no_interval_from_few_values_or_without_spread(values: list[float]) -> None:
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


def test_prediction_interval_by_hand() -> None:
    # Mean 96.4, sd sqrt(1.74 / 4) = 0.65955; t(0.975, 4) = 2.7764; sqrt(1.2) = 1.0954: 2.0059.
    found = predict(SAMPLE)
    assert (found.low, found.high) == pytest.approx((96.4 - 2.0059, 96.4 + 2.0059), abs=1e-4)
    # The largest of 80: t(1 - 0.025/80, 4) = 9.1 above, as before below.
    largest = predict(SAMPLE, best_of=80)
    t = scipy_stats.t.ppf(1 - 0.025 / 80, 4)
    assert largest.low == found.low
    assert largest.high == pytest.approx(96.4 + t * np.std(SAMPLE, ddof=1) * math.sqrt(1.2))


def test_prediction_needs_spread() -> None:
    assert predict([97.0, 98.0]).low is None
    assert predict([97.0, 97.0, 97.0]).contains(97.0) is None


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
