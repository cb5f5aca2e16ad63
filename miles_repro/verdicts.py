"""Verdicts on paired differences that stay valid however often one looks.

A classical t test repeated after every seed rejects a true null far more often than it says. Here
every number comes from an e-process, which a true hypothesis lets grow past 1/alpha with a
probability of at most alpha over *all* sample sizes together (Ville's inequality). So the same rule
stops a study that runs until decided and fills every table. Pure Python and scipy's special
functions; ``scripts/error_rates.py`` simulates the error rates, docs/statistics.md explains them.

The e-process is the ratio of two densities of the t statistic of n differences with mean mu0:
effect sizes (mean - mu0) / sigma drawn from N(0, SCALE^2), over effect size zero; the unknown sigma
drops out (right Haar prior). Wang and Ramdas, "Anytime-valid t-tests and confidence sequences for
Gaussian means with unknown variance", 2023 (arXiv 2310.03722).

Differences are in points; they are taken as independent and roughly normal over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

ALPHA = 0.05
"""Error rate of every verdict, and 1 - ALPHA the level of every interval."""

EPS = {"fused": 1.0, "heads": 2.0}
"""Largest difference in points that counts as equal: fused metric; heads and their gap."""

SCALE = 2.0
"""Spread of the effect sizes in sigmas that the e-process bets on. The choice moves the width of
intervals, never their error rate; 2 is near the narrowest between 5 and 40 seeds."""

POWER = 0.8
"""Chance with which a difference of the size `detectable` is found."""

Word = Literal["better", "worse", "equal", "undecided"]


@dataclass(frozen=True)
class Verdict:
    """What n paired differences say at level alpha.

    word: "better" or "worse": the difference is not zero (it may still be smaller than eps, which
    the interval shows); "equal": smaller than eps either way; "undecided": neither yet.
    mean, low, high: points; the interval holds for all n at once, None where it is unbounded (few
    seeds). p: of "no difference", 1 / e-value. more: about so many more seeds decide, if mean and
    spread stay as they are; None where decided, or where one pair gives no spread to go by.
    """

    word: Word
    mean: float
    low: float | None
    high: float | None
    n: int
    p: float
    more: int | None


@dataclass(frozen=True)
class _Sample:
    """What the e-process needs of n differences: their mean and sum of squared deviations."""

    n: int
    mean: float
    squares: float

    def p(self, mu0: float) -> float:
        """Anytime-valid p value of "the mean is mu0"."""
        n, k = self.n, _inflation(self.n)
        distance = n * (self.mean - mu0) ** 2
        if n < 2 or distance < 1e-18:
            return 1.0
        growth = math.log(self.squares + distance) - math.log(self.squares + distance / k)
        return min(1.0, math.exp(0.5 * math.log(k) - n / 2 * growth))

    def p_unequal(self, eps: float) -> float:
        """Of "the mean is at least eps away from 0": the larger of two one-sided tests."""
        return 1.0 if abs(self.mean) >= eps else max(self.p(eps), self.p(-eps))

    @property
    def sd(self) -> float:
        return math.sqrt(self.squares / (self.n - 1)) if self.n > 1 else math.nan

    def interval(self, alpha: float) -> tuple[float, float] | tuple[None, None]:
        width = half_width(self.n, alpha)
        if math.isinf(width):
            return None, None
        half = width * self.sd
        return round(self.mean - half, 9), round(self.mean + half, 9)

    def more(self, eps: float, alpha: float) -> int | None:
        if self.n < 2:
            return None
        return max(1, expected_seeds(self.sd, eps, self.mean, alpha) - self.n)


def _sample(differences: Sequence[float]) -> _Sample:
    values = [float(value) for value in differences]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"a verdict needs finite differences, got {values}")
    mean = math.fsum(values) / len(values)
    squares = math.fsum((value - mean) ** 2 for value in values)
    # Metrics are ratios: a spread below 1e-9 is rounding.
    return _Sample(len(values), round(mean, 9), 0.0 if squares < 1e-18 * len(values) else squares)


def _inflation(n: int) -> float:
    """Variance of the t statistic under the bet, over its variance under the null."""
    return 1 + n * SCALE**2


def half_width(n: int, alpha: float = ALPHA) -> float:
    """Half the length of the interval in standard deviations of the differences; infinite where n
    values cannot bound the mean (below 4 at 5 %)."""
    k = _inflation(n)
    ratio = (math.sqrt(k) / alpha) ** (2 / n)
    if n < 2 or ratio >= k:
        return math.inf
    return math.sqrt((n - 1) / n * (ratio - 1) / (1 - ratio / k))


def verdict(differences: Sequence[float], eps: float, alpha: float = ALPHA) -> Verdict:
    """Judge one contrast. Raises ValueError without differences or for one that is not finite.

    "better" (or "worse") is false with a probability of at most alpha when the mean is zero, and
    "equal" with at most alpha when it is eps or more away from zero, over all looks together.
    """
    return verdicts({"": differences}, eps, alpha)[""]


def verdicts(
    family: Mapping[str, Sequence[float]],
    eps: float,
    alpha: float = ALPHA,
    primary: str | None = None,
) -> dict[str, Verdict]:
    """Judge a family of contrasts together; p values are adjusted (Holm), intervals are not.

    At most alpha is the probability of any false "better" or "worse" in the family, and alpha that
    of any false "equal". `primary`: the contrast named beforehand, judged outside the family at the
    whole alpha. Raises ValueError as `verdict`.
    """
    samples = {name: _sample(values) for name, values in family.items()}
    rest = [name for name in samples if name != primary]
    p = {name: sample.p(0.0) for name, sample in samples.items()}
    unequal = {name: sample.p_unequal(eps) for name, sample in samples.items()}
    for adjusted in (p, unequal):
        adjusted |= zip(rest, holm([adjusted[name] for name in rest]), strict=True)
    found = {}
    for name, sample in samples.items():
        word: Word = "undecided"
        if p[name] <= alpha:
            word = "better" if sample.mean > 0 else "worse"
        elif unequal[name] <= alpha:
            word = "equal"
        level = alpha if name == primary else alpha / len(rest)
        more = sample.more(eps, level) if word == "undecided" else None
        low, high = sample.interval(alpha)
        found[name] = Verdict(word, sample.mean, low, high, sample.n, p[name], more)
    return found


def p_above(differences: Sequence[float], border: float = 0.0) -> float:
    """Anytime-valid p value of "the mean is at most `border`": small where it is above."""
    sample = _sample(differences)
    return sample.p(border) if sample.mean > border else 1.0


def p_below(differences: Sequence[float], border: float = 0.0) -> float:
    """Anytime-valid p value of "the mean is at least `border`": small where it is below."""
    return p_above([-value for value in differences], -border)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values, in the order given (Scand. J. Statistics 6, 1979).

    With anytime-valid p values the family's error rate holds over all looks as well.
    """
    order = sorted((p, i) for i, p in enumerate(p_values))
    adjusted = [1.0] * len(p_values)
    running = 0.0
    for step, (p, i) in enumerate(order):
        running = max(running, min(1.0, (len(order) - step) * p))
        adjusted[i] = running
    return adjusted


def decide(support: Sequence[float], against: Sequence[float], alpha: float = ALPHA) -> str:
    """A claim of several parts from one-sided p values: "supported", "not supported", "undecided".

    support: p of "this part does not hold". All must be small; no correction is needed, because in
    a false claim some part is false (intersection-union test; Berger, Technometrics 24, 1982).
    against: p of "this part is not contradicted". One is enough, so the smallest counts times their
    number (Holm's first step). Either verdict is false with a probability of at most alpha.
    """
    if against and len(against) * min(against) <= alpha:
        return "not supported"
    return "supported" if support and max(support) <= alpha else "undecided"


def expected_seeds(sd: float, eps: float, effect: float = 0.0, alpha: float = ALPHA) -> int:
    """Seeds after which differences of that mean and standard deviation are decided.

    The first n whose interval around `effect` leaves out zero, or lies within (-eps, eps).
    """
    room = max(abs(effect), eps - abs(effect))
    n = 2
    while not half_width(n, alpha) * sd < room:  # an infinite width times no spread is no number
        n = n + 1 if n < 100 else math.ceil(1.01 * n)
    return n


def detectable(sd: float, n: int, alpha: float = ALPHA) -> float:
    """Smallest difference in points that n seeds find "better" or "worse" with 80 % chance.

    sd: standard deviation of the paired differences. Infinite below 4 seeds (at alpha 5 %).
    """
    from scipy.special import nctdtrinc

    width = half_width(n, alpha)
    if math.isinf(width):
        return math.inf
    # The noncentrality at which Student's t passes the border in 80 % of samples.
    border = width * math.sqrt(n)
    return float(nctdtrinc(n - 1, 1 - POWER, border) * sd / math.sqrt(n))
