"""Each rule of the verdicts on cases checked by hand or by other formulas."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate
from scipy import stats as scipy_stats

from miles_repro.verdicts import (
    SCALE,
    decide,
    detectable,
    expected_seeds,
    half_width,
    holm,
    p_above,
    p_below,
    verdict,
    verdicts,
)

SAMPLE = [1.0, 2.0, 1.5, 1.2, 0.8, 1.1]


def t_of(values: list[float], mu0: float = 0.0) -> float:
    return float((np.mean(values) - mu0) / scipy_stats.sem(values))


def test_the_p_value_is_one_over_the_mixture_of_noncentral_t() -> None:
    # Density of t under effect sizes from N(0, SCALE^2), integrated, over that under no effect.
    n, t = len(SAMPLE), t_of(SAMPLE)

    def integrand(effect: float) -> float:
        density = scipy_stats.nct.pdf(t, n - 1, math.sqrt(n) * effect)
        return float(density * scipy_stats.norm.pdf(effect, scale=SCALE))

    mixed = integrate.quad(integrand, -12, 12, points=[0.0, 2.0], limit=200)[0]
    evalue = mixed / scipy_stats.t.pdf(t, n - 1)
    assert verdict(SAMPLE, 1.0).p == pytest.approx(1 / evalue, rel=1e-6)


def test_by_hand_with_four_values() -> None:
    # n 4, c 2: k = 17; mean 2, squares 2, so (2 + 4 * 4) / (2 + 16 / 17) = 6.12, to the power of
    # n / 2 = 2: 37.4544; over the root of 17, 4.12311: E = 9.08402.
    assert verdict([1.0, 2.0, 2.0, 3.0], 1.0).p == pytest.approx(1 / 9.08402, rel=1e-5)
    # Half width: (sqrt(17) * 20)^(1/2) = 9.0808; sqrt(3/4 * 8.0808 / (1 - 9.0808 / 17)) = 3.6070.
    assert half_width(4) == pytest.approx(3.6070, abs=1e-4)
    found = verdict([1.0, 2.0, 2.0, 3.0], 1.0)
    assert found.low == pytest.approx(2 - 3.6070 * math.sqrt(2 / 3), abs=1e-3)
    assert (found.word, found.n) == ("undecided", 4)


def test_the_interval_is_what_the_e_process_does_not_reject() -> None:
    found = verdict(SAMPLE, 1.0)
    assert found.low is not None
    assert found.high is not None
    for border in (found.low, found.high):
        shifted = [value - border for value in SAMPLE]
        assert verdict(shifted, 1.0).p == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize(
    "values, word",
    [
        (SAMPLE, "better"),
        ([-value for value in SAMPLE], "worse"),
        ([0.1, -0.1, 0.05, 0.0, 0.2, -0.2], "equal"),
        ([1.0, -2.0, 1.5, 1.2, 0.8, 1.1], "undecided"),
        ([0.0] * 4, "equal"),
        ([0.3] * 4, "better"),
        ([0.0, 0.0], "undecided"),
        ([5.0], "undecided"),
        ([5.0, 5.1, 5.2], "undecided"),  # three values bound nothing at 5 %
    ],
)
def test_words(values: list[float], word: str) -> None:
    assert verdict(values, 1.0).word == word


def test_equal_needs_the_whole_interval_inside_the_margin() -> None:
    values = [0.5, 0.3, 0.7, 0.4, 0.6, 0.5, 0.2, 0.8, -0.6, 1.6]
    found = verdict(values, 1.0)
    assert found.high is not None
    assert found.low is not None
    assert found.low < 0 < found.high
    assert verdict(values, found.high + 1e-6).word == "equal"
    assert verdict(values, found.high - 1e-6).word == "undecided"


def test_a_difference_smaller_than_eps_is_still_a_difference() -> None:
    found = verdict([0.30, 0.31, 0.29, 0.30, 0.32, 0.28], 1.0)
    assert found.word == "better"
    assert found.high is not None
    assert found.high < 1.0


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        verdict(values, 1.0)


def test_one_sided_p_values() -> None:
    assert p_above(SAMPLE) == verdict(SAMPLE, 1.0).p
    assert p_above(SAMPLE, 1.3) == 1.0  # the mean, 1.27, is below
    assert p_below(SAMPLE) == 1.0
    assert p_below(SAMPLE, 3.0) == pytest.approx(p_above([3.0 - value for value in SAMPLE]))


def test_a_family_is_holms_and_its_primary_contrast_is_not_in_it() -> None:
    noisy = [1.5, 2.0, 0.1, 1.8, -0.4, 1.1]
    alone = {name: verdict(values, 1.0).p for name, values in {"a": SAMPLE, "b": noisy}.items()}
    both = verdicts({"a": SAMPLE, "b": noisy}, 1.0)
    assert both["a"].p == pytest.approx(2 * alone["a"])
    named = verdicts({"a": SAMPLE, "b": noisy}, 1.0, primary="a")
    assert (named["a"].p, named["b"].p) == (alone["a"], alone["b"])
    # Intervals are uncorrected.
    assert both["a"].low == verdict(SAMPLE, 1.0).low


def test_a_family_decides_less_than_its_members() -> None:
    values = [1.0, 1.7, 1.5, 0.4, 0.8, 1.1]
    assert verdict(values, 1.0).word == "better"
    judged = verdicts(dict.fromkeys("abcdef", values), 1.0)
    assert {found.word for found in judged.values()} == {"undecided"}


def test_holm_by_hand() -> None:
    # Smallest times 6, next times 5, ...; never below the one before: 0.005, 0.01, 0.03, 0.04, ...
    p = [0.01, 0.04, 0.03, 0.005, 0.2, 0.04]
    assert holm(p) == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.2, 0.12])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_properties(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, new in zip(p, adjusted, strict=True):
        assert raw <= new <= min(1.0, len(p) * raw + 1e-12)
    sorted_new = [adjusted[i] for i in sorted(range(len(p)), key=lambda i: p[i])]
    assert sorted_new == sorted(sorted_new)


def test_a_claim_needs_every_part_and_falls_with_one() -> None:
    assert decide([0.01, 0.05], [1.0, 1.0]) == "supported"
    assert decide([0.01, 0.06], [1.0, 1.0]) == "undecided"
    assert decide([1.0, 0.01], [0.025, 1.0]) == "not supported"
    assert decide([1.0, 0.01], [0.026, 1.0]) == "undecided"  # two parts: 0.052
    assert decide([], []) == "undecided"


def test_more_seeds_are_those_the_interval_needs() -> None:
    values = [1.0, -2.0, 1.5, 1.2, 0.8, 1.1]
    found = verdict(values, 1.0)
    assert found.more is not None
    n, sd, mean = found.n + found.more, float(np.std(values, ddof=1)), found.mean
    room = max(abs(mean), 1.0 - abs(mean))
    assert half_width(n) * sd < room <= half_width(n - 1) * sd
    assert verdict(SAMPLE, 1.0).more is None
    assert verdict([1.0], 1.0).more is None


def test_expected_seeds() -> None:
    assert expected_seeds(0.0, 1.0) == 4
    assert expected_seeds(1.0, 1.0) == expected_seeds(2.0, 2.0)
    assert expected_seeds(1.0, 1.0, 2.0) < expected_seeds(1.0, 1.0, 0.5)
    assert expected_seeds(100.0, 1.0) > 10_000


def test_detectable_has_the_power_it_says() -> None:
    # 80 % of samples with that mean must give an interval above zero.
    n, sd = 10, 1.3
    size = detectable(sd, n)
    border = half_width(n) * math.sqrt(n)
    power = 1 - scipy_stats.nct.cdf(border, n - 1, math.sqrt(n) * size / sd)
    assert power == pytest.approx(0.8, abs=1e-6)
    assert detectable(1.0, 3) == math.inf


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=20),
    st.floats(0.1, 5),
)
def test_mirrored_differences_give_mirrored_verdicts(values: list[float], eps: float) -> None:
    one, other = verdict(values, eps), verdict([-v for v in values], eps)
    swapped = {"better": "worse", "worse": "better"}
    assert other.word == swapped.get(one.word, one.word)
    assert other.p == pytest.approx(one.p, rel=1e-6)
    assert 0 <= one.p <= 1
    if one.low is not None and one.high is not None:
        assert one.low <= one.mean <= one.high


def test_imports_nothing_heavy() -> None:
    code = (
        "import sys, miles_repro.verdicts as v; v.verdict([1, 2, 3, 4], 1);"
        "heavy = {'torch', 'pandas', 'scipy', 'numpy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
