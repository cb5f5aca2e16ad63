"""Seed statistics: intervals, paired tests, corrections, ranks. Thin layers over scipy.

The unit is one run; the spread is over training seeds on one fixed test set, so an interval says
how much a *retraining* would move the number, not how another test sample would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Confidence level of every interval, and 1 - LEVEL the significance level of every test."""

WILCOXON_MIN = 6
"""Below six pairs the two-sided exact Wilcoxon p cannot reach 0.05 (its minimum is 2 / 2^n)."""

BOOTSTRAP_MIN = 8
"""Below eight values a resampled interval covers far less than it claims."""


@dataclass(frozen=True)
class Interval:
    """Mean with its confidence interval.

    low and high are None where the values give none: a single one, or several without spread.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def contains(self, value: float, slack: float = 1e-9) -> bool | None:
        """Whether `value` lies inside; None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low - slack <= value <= self.high + slack


def mean_ci(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean of `values` with Student's t interval, where they have one.

    Raises ValueError for no values or a value that is not finite.
    """
    sample = _finite(values)
    # Rounded to 1e-9, so that printed text does not hang on the order of summation.
    n, mean = len(sample), round(float(sample.mean()), 9)
    if _flat(sample):
        return Interval(mean, None, None, n)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + level) / 2) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(mean, round(mean - half, 9), round(mean + half, 9), n)


def _flat(sample: np.ndarray) -> bool:
    """Whether there is no spread to estimate; metrics are ratios, below 1e-9 is rounding."""
    return bool(np.ptp(sample) < 1e-9)


@dataclass(frozen=True)
class Paired:
    """a - b over the seeds both have.

    p: paired t test, the one decisions rest on (it works from two seeds on, if the differences are
    roughly normal). wilcoxon: signed-rank test without that assumption, None below WILCOXON_MIN.
    p is None with one pair, or where all differences are equal and not zero (no spread to test on).
    """

    difference: Interval
    p: float | None
    wilcoxon: float | None

    @property
    def n(self) -> int:
        return self.difference.n


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Paired | None:
    """Compare two methods over their shared seeds; None where they share none."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return None
    # Rounded, so that equal differences of ratios count as ties.
    differences = np.round([a[seed] - b[seed] for seed in seeds], 9)
    return Paired(mean_ci(differences.tolist()), _t_test(differences), _wilcoxon(differences))


def _t_test(differences: np.ndarray) -> float | None:
    n = len(differences)
    if _flat(differences):
        return 1.0 if n > 1 and not differences.any() else None
    from scipy.special import stdtr

    error = differences.std(ddof=1) / math.sqrt(n)
    return float(2 * stdtr(n - 1, -abs(differences.mean()) / error))


def _wilcoxon(differences: np.ndarray) -> float | None:
    if len(differences) < WILCOXON_MIN:
        return None
    if not differences.any():
        return 1.0
    from scipy.stats import wilcoxon

    return float(wilcoxon(differences).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjusted p values, in the order given; the family is the tests made (None
    stays None and does not count)."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    running = 0.0
    for step, (p, i) in enumerate(order):
        running = max(running, min(1.0, (len(order) - step) * p))
        adjusted[i] = running
    return adjusted


@dataclass(frozen=True)
class Ranks:
    """Ranks (1 = best) per method and block, with Friedman's p and Nemenyi's distance."""

    per_block: dict[str, list[float]]
    friedman_p: float
    critical_difference: float

    @property
    def blocks(self) -> int:
        return len(next(iter(self.per_block.values())))

    @property
    def average(self) -> dict[str, float]:
        return {method: sum(ranks) / len(ranks) for method, ranks in self.per_block.items()}


def average_ranks(scores: Mapping[str, Sequence[float]]) -> Ranks | None:
    """Rank methods in each block (higher score = better, ties share the mean rank).

    scores: method -> one score per block, the same blocks in the same order for every method.
    None with fewer than 3 methods (Friedman's test needs three) or 2 blocks. Demsar, JMLR 7, 2006.
    """
    methods = list(scores)
    table = np.array([scores[method] for method in methods], dtype=float)
    if len(methods) < 3 or table.shape[1] < 2:
        return None
    from scipy.stats import friedmanchisquare, rankdata

    ranks = rankdata(-np.round(table, 9), axis=0)
    tied = bool((ranks == ranks[0]).all())  # every method equal in every block: nothing to test
    p = 1.0 if tied else float(friedmanchisquare(*ranks).pvalue)
    per_block = dict(zip(methods, ranks.tolist(), strict=True))
    return Ranks(per_block, p, nemenyi_cd(len(methods), table.shape[1]))


def nemenyi_cd(methods: int, blocks: int, level: float = LEVEL) -> float:
    """Difference of average ranks that separates two of `methods` at 1 - level (Nemenyi)."""
    from scipy.stats import studentized_range

    q = studentized_range.ppf(level, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * blocks)))


def bootstrap_ci(
    values: Sequence[float], *, random_state: int, level: float = LEVEL, resamples: int = 9999
) -> Interval:
    """Mean with its bias-corrected accelerated bootstrap interval, a function of `random_state`.

    No interval below BOOTSTRAP_MIN values, or where they have no spread.
    """
    sample = _finite(values)
    mean = float(sample.mean())
    if len(sample) < BOOTSTRAP_MIN or _flat(sample):
        return Interval(mean, None, None, len(sample))
    from scipy.stats import bootstrap

    interval = bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(random_state),
    ).confidence_interval
    return Interval(mean, float(interval.low), float(interval.high), len(sample))


def _finite(values: Sequence[float]) -> np.ndarray:
    sample = np.asarray(values, dtype=float)
    if sample.size == 0:
        raise ValueError("no values: a mean needs at least one")
    if not np.isfinite(sample).all():
        raise ValueError(f"values must be finite, got {values}")
    return sample
