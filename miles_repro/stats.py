"""Descriptive seed statistics: means, prediction intervals, ranks. Thin layers over scipy.

The unit is one run; the spread is over seeds, so an interval says how much another seed would move
the number: a retraining on one fixed test set, or with ``dataset.scheme=rotate`` another split too.
Comparisons are judged in ``verdicts``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Confidence level of the intervals here."""

INTERVAL_MIN = 3
"""Below three values an interval says nothing: with two it is 9 times as wide as their distance."""

BOOTSTRAP_MIN = 8
"""Below eight values a resampled interval covers far less than it claims."""


@dataclass(frozen=True)
class Interval:
    """Mean with its confidence interval.

    low and high are None where the values give none: fewer than three, or no spread.
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
    if n < INTERVAL_MIN or _flat(sample):
        return Interval(mean, None, None, n)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, (1 + level) / 2) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(mean, round(mean - half, 9), round(mean + half, 9), n)


def predict(values: Sequence[float], best_of: int = 1, level: float = LEVEL) -> Interval:
    """Where one further run like `values` falls (t prediction interval), or with `best_of` the
    largest of so many: its lower end is that of one run, its upper end Bonferroni's over the runs
    (Chew, JASA 63, 1968), so it covers at least `level`.

    Raises ValueError as `mean_ci`; no interval where that has none.
    """
    sample = _finite(values)
    n, mean = len(sample), round(float(sample.mean()), 9)
    if n < INTERVAL_MIN or _flat(sample):
        return Interval(mean, None, None, n)
    from scipy.special import stdtrit

    spread = float(sample.std(ddof=1)) * math.sqrt(1 + 1 / n)
    low, high = (float(stdtrit(n - 1, 1 - (1 - level) / 2 / k)) * spread for k in (1, best_of))
    return Interval(mean, round(mean - low, 9), round(mean + high, 9), n)


def _flat(sample: np.ndarray) -> bool:
    """Whether there is no spread to estimate; metrics are ratios, below 1e-9 is rounding."""
    return bool(np.ptp(sample) < 1e-9)


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
