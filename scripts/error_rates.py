"""How often verdicts are wrong, and how often they come: the tables of docs/statistics.md.

python scripts/error_rates.py                     2,000 studies a line (a few minutes)
python scripts/error_rates.py --studies 200       rough, in seconds

Differences are drawn; every line says from what. "Looking" means judging after each new seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation

from miles_repro.paper import DATASETS, PAPER_ROWS, published
from miles_repro.stats import mean_ci, predict
from miles_repro.verdicts import ALPHA, decide, expected_seeds, holm, p_above, p_below, verdicts
from miles_repro.verdicts import verdict as judge

SEEDS = 40
FEWEST = 3
EPS = 1.0
FAMILY = 12
RIVALS = 8
CELLS = 8

RULES = ("before", "fixed n", "now")
"""How claims were decided; by t tests at a number of seeds fixed beforehand; at any number."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
NOISE: dict[str, Draw] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "Student t, 5 degrees": lambda rng, n: rng.standard_t(5, n) * np.sqrt(3 / 5),
    "skewed (shifted exponential)": lambda rng, n: rng.exponential(1.0, n) - 1,
    "normal, rounded to 0.2": lambda rng, n: np.round(rng.standard_normal(n) * 5) / 5,
}
"""Noise with mean 0 and standard deviation 1."""


def t_word(values: Sequence[float]) -> str:
    """The rule that is not valid under looking: Student's interval, each time anew."""
    found = mean_ci(values)
    if found.low is None or found.high is None:
        return "undecided"
    if found.low > 0 or found.high < 0:
        return "better" if found.low > 0 else "worse"
    return "equal" if found.low > -EPS and found.high < EPS else "undecided"


def anytime_word(values: Sequence[float]) -> str:
    return judge(values, EPS).word


def looking(
    rule: Callable[[Sequence[float]], str],
    mean: float,
    sd: float,
    studies: int,
    noise: str = "normal",
) -> list[tuple[str, int]]:
    """Per study, the first verdict other than undecided and after how many seeds it came."""
    rng, found = np.random.default_rng(0), []
    for _ in range(studies):
        values = (mean + sd * NOISE[noise](rng, SEEDS)).tolist()
        words = ((rule(values[:n]), n) for n in range(FEWEST, SEEDS + 1))
        found.append(next((pair for pair in words if pair[0] != "undecided"), ("undecided", SEEDS)))
    return found


def share(found: Sequence[tuple[str, int]], *words: str) -> float:
    return sum(word in words for word, _ in found) / len(found)


def ever(rule: Callable[[Sequence[float]], str], word: str, mean: float, studies: int) -> float:
    """Share of studies in which any look says `word`, sd 1; nothing stops before."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(studies):
        values = rng.normal(mean, 1, SEEDS).tolist()
        hits += any(rule(values[:n]) == word for n in range(FEWEST, SEEDS + 1))
    return hits / studies


def false_alarms(studies: int) -> list[list[str]]:
    rows = [["differences", "t test each time", "verdict"]]
    for noise in NOISE:
        shares = [
            share(looking(rule, 0.0, 3.0, studies, noise), "better", "worse")
            for rule in (t_word, anytime_word)
        ]
        rows.append([f"mean 0, {noise}", *map(percent, shares)])
    shares = [ever(rule, "equal", EPS, studies) for rule in (t_word, anytime_word)]
    rows.append(['mean eps, normal: false "equal"', *map(percent, shares)])
    return rows


def power(studies: int) -> list[list[str]]:
    rows = [["mean", "sd", "better", "worse", "equal", "undecided", "median n", "expected n"]]
    for sd in (0.5, 1.0, 2.0):
        for mean in (0.0, 0.5, 1.0, 2.0):
            found = looking(anytime_word, mean, sd, studies)
            shares = [share(found, w) for w in ("better", "worse", "equal", "undecided")]
            seeds = median(n for _, n in found)
            expected = expected_seeds(sd, EPS, mean)
            texts = [f"{mean:g}", f"{sd:g}", *map(percent, shares)]
            rows.append([*texts, f"{seeds:g}", f"{expected}"])
    return rows


def family(studies: int, true: int) -> tuple[float, float]:
    """Share of studies with any false better or worse, after looking, and of the true effects
    (2 sd) found; one study is FAMILY contrasts with a common reference, sd 1."""
    rng, wrong, right = np.random.default_rng(0), 0, 0
    means = np.array([2.0] * true + [0.0] * (FAMILY - true))
    looks = (3, 5, 8, 12, 20, 30, SEEDS)
    for _ in range(studies):
        common, own = rng.normal(size=(1, SEEDS)), rng.normal(size=(FAMILY, SEEDS))
        table = means[:, None] + (common + own) / np.sqrt(2)
        found: set[str] = set()
        for n in looks:
            judged = verdicts({str(i): row[:n].tolist() for i, row in enumerate(table)}, EPS)
            found |= {name for name, v in judged.items() if v.word in ("better", "worse")}
        wrong += any(int(name) >= true for name in found)
        right += sum(int(name) < true for name in found)
    return wrong / studies, right / (studies * true) if true else float("nan")


def families(studies: int) -> list[list[str]]:
    rows = [[f"true effects among {FAMILY}", "any false verdict", "true effects found"]]
    for true in (0, 4, 8):
        wrong, right = family(studies, true)
        rows.append([str(true), percent(wrong), percent(right) if true else "–"])
    return rows


def old_claim(tests: Sequence[tuple[float, float]]) -> str:
    """As claims were decided before: paired t tests, Holm both ways. (mean, p) per rival."""
    adjusted = holm([p for _, p in tests])
    signs = [np.sign(m) * (p < ALPHA) for (m, _), p in zip(tests, adjusted, strict=True)]
    return "not supported" if min(signs) < 0 else "supported" if min(signs) > 0 else "undecided"


def t_tests(table: np.ndarray) -> list[tuple[float, float]]:
    from scipy.stats import ttest_1samp

    p = ttest_1samp(table, 0, axis=1).pvalue
    return list(zip(table.mean(axis=1).tolist(), p.tolist(), strict=True))


def paper_margins() -> np.ndarray:
    """MILES minus each other row, fused, in the paper's Tables II and III: (cells, rivals)."""

    def margins(table: int, dataset: str, fusion: str) -> list[float]:
        found = (published(table, dataset, fusion, row, "fused") for row in PAPER_ROWS)
        values = dict(zip(PAPER_ROWS, (one.value for one in found if one), strict=True))
        return [values["miles"] - value for row, value in values.items() if row != "miles"]

    tables = ((2, "concat"), (3, "sum"))
    return np.array([margins(table, d, fusion) for table, fusion in tables for d in DATASETS])


def claim_best(
    studies: int, margins: Sequence[float] | np.ndarray, sd: float, n: int, cells: int = 1
) -> dict[str, list[float]]:
    """Rule -> shares of "supported" and "not supported" for "beats each of the rivals in every
    cell"; margins: (rivals,) or (cells, rivals). Every method has its own noise of `sd`, so the
    subject's noise is in all pairs."""
    rivals = np.shape(margins)[-1]
    true = np.broadcast_to(margins, (cells, rivals))[..., None]
    rng = np.random.default_rng(0)
    words: dict[str, list[str]] = {rule: [] for rule in RULES}
    for _ in range(studies):
        own = rng.normal(0, sd, (cells, 1, n))
        gains = true + own - rng.normal(0, sd, (cells, rivals, n))
        tests = [t_tests(cell) for cell in gains]
        old = [old_claim(cell) for cell in tests]
        each = ("not supported", "undecided")
        words["before"].append(next((w for w in each if w in old), "supported"))
        sided = [(p if m > 0 else 2 - p) / 2 for cell in tests for m, p in cell]
        words["fixed n"].append(decide(sided, [1 - p for p in sided]))
        flat = gains.reshape(-1, n).tolist()
        words["now"].append(decide([p_above(d) for d in flat], [p_below(d) for d in flat]))
    return {
        rule: [found.count(word) / studies for word in ("supported", "not supported")]
        for rule, found in words.items()
    }


def claims(studies: int) -> list[list[str]]:
    cases: list[tuple[str, Sequence[float] | np.ndarray, int, int]] = [
        ("all methods equal", [0.0] * RIVALS, 5, 1),
        ("all methods equal", [0.0] * RIVALS, 5, CELLS),
        ("all methods equal", [0.0] * RIVALS, 40, CELLS),
        ("one rival equal, the others 3 below", [0.0] + [3.0] * (RIVALS - 1), 10, 1),
        ("every rival 1 below", [1.0] * RIVALS, 5, 1),
        ("every rival 1 below", [1.0] * RIVALS, 10, 1),
        ("every rival 1 below", [1.0] * RIVALS, 20, 1),
        ("one rival 1 above", [-1.0] + [0.0] * (RIVALS - 1), 10, 1),
        ("one rival 1 above", [-1.0] + [0.0] * (RIVALS - 1), 20, 1),
        ("the paper's margins", paper_margins(), 5, CELLS),
        ("the paper's margins", paper_margins(), 20, CELLS),
        ("the paper's margins", paper_margins(), 40, CELLS),
    ]
    heads = [f"{word}: {rule}" for word in ("supported", "not supported") for rule in RULES]
    rows = [["truth (sd 0.4)", "cells", "n", *heads]]
    for truth, margins, n, cells in cases:
        found = claim_best(studies, margins, 0.4, n, cells)
        shares = [found[rule][i] for i in (0, 1) for rule in RULES]
        rows.append([truth, str(cells), str(n), *map(percent, shares)])
    return rows


def replications(studies: int) -> list[list[str]]:
    """How often one further run of the very same method lies outside an interval."""
    rows = [["seeds", "outside the mean's interval", "outside the prediction interval",
             "largest of 80 outside its interval"]]  # fmt: skip
    rng = np.random.default_rng(0)
    for n in (3, 5, 10):
        outside = np.zeros(3)
        for _ in range(studies):
            seeds = rng.normal(size=n).tolist()
            further = rng.normal(size=80)
            one, largest = float(further[0]), float(further.max())
            outside += [
                not mean_ci(seeds).contains(one),
                not predict(seeds).contains(one),
                not predict(seeds, best_of=80).contains(largest),
            ]
        rows.append([str(n), *map(percent, outside / studies)])
    return rows


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


TABLES = {
    f"Looking after every seed, {FEWEST} to {SEEDS} (sd 3 x eps; sd 1 x eps for \"equal\")":
        false_alarms,
    f"What a verdict says within {SEEDS} seeds (eps {EPS:g})": power,
    "A family of contrasts, judged after 3, 5, 8, 12, 20, 30 and 40 seeds": families,
    f'The claim "beats each of {RIVALS} rivals (in every cell)"': claims,
    "One published run against our seeds": replications,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies a line")
    studies = parser.parse_args().studies
    if studies < 1:
        parser.error(f"--studies {studies}: at least 1")
    from tabulate import tabulate

    for title, simulate in TABLES.items():
        rows = simulate(studies)
        print(f"{title}\n\n{tabulate(rows[1:], rows[0], 'github', disable_numparse=True)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
