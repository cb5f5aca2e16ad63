"""Simulated error rates and power of the verdicts, against the bounds that docs state."""

from __future__ import annotations

import subprocess
import sys
from math import sqrt
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import error_rates as simulation  # noqa: E402

STUDIES = 1000
# Three standard deviations of a share of 5 %.
BOUND = 0.05 + 3 * sqrt(0.05 * 0.95 / STUDIES)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "Student t, 5 degrees", "normal, rounded to 0.2"])
def test_looking_after_every_seed_raises_no_false_alarms(noise: str) -> None:
    found = simulation.looking(simulation.anytime_word, 0.0, 3.0, STUDIES, noise)
    assert simulation.share(found, "better", "worse") <= 0.05


@pytest.mark.slow
def test_a_t_test_after_every_seed_does() -> None:
    found = simulation.looking(simulation.t_word, 0.0, 3.0, STUDIES)
    assert 0.22 < simulation.share(found, "better", "worse") < 0.34


@pytest.mark.slow
def test_false_equal_at_the_margin() -> None:
    assert simulation.ever(simulation.anytime_word, "equal", simulation.EPS, STUDIES) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("mean, sd, word", [(2.0, 1.0, "better"), (0.0, 0.5, "equal")])
def test_power(mean: float, sd: float, word: str) -> None:
    found = simulation.looking(simulation.anytime_word, mean, sd, STUDIES)
    assert simulation.share(found, word) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("true", [0, 4, 8])
def test_a_family_keeps_its_error_rate_and_finds_effects(true: int) -> None:
    wrong, right = simulation.family(STUDIES, true)
    assert wrong <= 0.05
    assert true == 0 or right > 0.9


@pytest.mark.slow
def test_claims_are_falsely_supported_or_refuted_in_at_most_5_percent() -> None:
    rivals, cells = simulation.RIVALS, simulation.CELLS
    for n in (5, 40):
        equal = simulation.claim_best(STUDIES, [0.0] * rivals, 0.4, n, cells)
        assert max(equal["now"]) <= 0.05
    tie = simulation.claim_best(STUDIES, [0.0] + [3.0] * (rivals - 1), 0.4, 10)
    assert tie["now"][0] <= 0.05
    true = simulation.claim_best(STUDIES, [1.0] * rivals, 0.4, 20)
    assert true["now"][0] > 0.9
    false = simulation.claim_best(STUDIES, [-1.0] + [0.0] * (rivals - 1), 0.4, 20)
    assert false["now"][1] > 0.9


@pytest.mark.slow
def test_the_rules_of_before_were_wrong_more_often() -> None:
    equal = simulation.claim_best(STUDIES, [0.0] * simulation.RIVALS, 0.4, 5, simulation.CELLS)
    assert equal["before"][1] > 0.1


@pytest.mark.slow
def test_a_perfect_replication_lies_in_the_prediction_interval() -> None:
    for row in simulation.replications(STUDIES)[1:]:
        _, mean, one, largest = (float(cell.removesuffix(" %")) / 100 for cell in row)
        assert mean > 0.05 + 0.05
        assert max(one, largest) <= BOUND


def test_the_tables_of_the_documentation_are_printed() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "error_rates.py"), "--studies", "2"],
        capture_output=True,
        text=True,
        check=True,
    )
    for title in simulation.TABLES:
        assert title in done.stdout
