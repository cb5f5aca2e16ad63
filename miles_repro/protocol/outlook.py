"""What deciding will take, said before anything starts: spreads of stored differences -> seeds."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from miles_repro.protocol.decide import Rule, UntilDecided
from miles_repro.protocol.jobs import Job
from miles_repro.verdicts import ALPHA, detectable, expected_seeds

ASSUMED_SD = 1.0
"""Points: standard deviation of a paired difference where no records tell. Our guess for small
encoders on digits; a data set with few or unlike groups has more."""

ENOUGH = 4
"""Pairs from which a row's own spread is taken."""


@dataclass(frozen=True)
class Outlook:
    """Of one fusion's comparison. seeds: row -> how many it should take; sd: median over the rows;
    known: rows whose spread comes from records; shows: the smallest difference in points that the
    first seeds find with 80 % chance."""

    fusion: str
    rows: tuple[str, ...]
    sd: float
    known: int
    seeds: dict[str, int]
    shows: float

    def text(self, rule: Rule) -> str:
        source = f"from records of {self.known} rows" if self.known else "assumed"
        typical = int(statistics.median(self.seeds.values()))
        first = (
            f"{rule.start} seeds find differences of {self.shows:.2g} points and more"
            if self.shows < float("inf")
            else f"{rule.start} seeds find no difference of any size"
        )
        return (
            f"  {self.fusion}: differences to {rule.reference} spread by {self.sd:.2g} points "
            f"({source});\n    {first};\n    deciding within {rule.eps:g} takes about {typical} "
            f"seeds a row (at most {rule.max_seeds})"
        )


def outlook(rounds: UntilDecided) -> list[Outlook]:
    """One for each fusion that has rows to compare, from the records that are there."""
    found = []
    for fusion, by_row in rounds.differences().items():
        if not by_row:
            continue
        own = {row: statistics.stdev(d) for row, d in by_row.items() if len(d) >= ENOUGH}
        sd = statistics.median(own.values()) if own else ASSUMED_SD
        seeds = {row: _seeds(row, own.get(row, sd), len(by_row), rounds.rule) for row in by_row}
        shows = detectable(sd, rounds.rule.start)
        found.append(Outlook(fusion, tuple(by_row), sd, len(own), seeds, shows))
    return found


def expected_runs(rounds: UntilDecided, found: list[Outlook]) -> list[Job]:
    """The runs beyond the first seeds that deciding should take."""
    rule = rounds.rule
    jobs = []
    for one in found:
        last = max(one.seeds.values())  # to which the reference and the primary row go on
        with_all = {row: last for row in (rule.primary,) if row in one.seeds}
        for row, seeds in {rule.reference: last, **one.seeds, **with_all}.items():
            jobs += [rounds.job(one.fusion, row, k) for k in range(rule.start + 1, seeds + 1)]
    return jobs


def _seeds(row: str, sd: float, rows: int, rule: Rule) -> int:
    """With the strictest level that Holm may set, for a row that differs in nothing."""
    alpha = ALPHA if row == rule.named else ALPHA / max(1, rows - 1)
    return max(rule.start, min(rule.max_seeds, expected_seeds(sd, rule.eps, 0.0, alpha)))
