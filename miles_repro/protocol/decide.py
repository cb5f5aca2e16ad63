"""Seeds until decided: more seeds for the reference and every undecided row, round by round.

The rule (:func:`replay`) is a function of the scores alone: it starts at the first seeds and goes
through the rounds as they must have happened, until a round lacks a run. So a command that was
killed, at any point and any number of times, ends with the same runs as one that was not. Verdicts
(:mod:`miles_repro.verdicts`) hold under repeated looking, so stopping on them is no peeking. A row
stops when its own verdict is there, never for looking bad; a diverged run counts with its numbers.
The reference and the primary row, which tables hold against every other, go on with the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from miles_repro.errors import UserError
from miles_repro.protocol.jobs import Job, Stage
from miles_repro.protocol.launch import Rounds, Start
from miles_repro.protocol.menu import UNIMODAL, menu
from miles_repro.protocol.stages import Protocol
from miles_repro.verdicts import EPS, Verdict, verdicts

REFERENCE, PRIMARY = "vanilla_aux", "miles"
"""The contrast that was named before anything ran: miles - vanilla_aux, on the fused metric."""

LEARN_FROM_UNIMODAL = ("teachers", "ensembles")
"""Families that need the unimodal models of their own seed."""

SHARE = 4
"""A round adds a quarter of the seeds that a row has, at least one: few rounds, few in vain."""

Run = tuple[str, int]
"""(row, decision seed)"""


@dataclass(frozen=True)
class Rule:
    """start: seeds that every row gets before the first look. eps: points that count as equal."""

    start: int
    eps: float = EPS["fused"]
    max_seeds: int = 40
    reference: str = REFERENCE
    primary: str = PRIMARY

    @property
    def named(self) -> str | None:
        """The row whose contrast was named beforehand: only against that reference."""
        return self.primary if self.reference == REFERENCE else None

    def __post_init__(self) -> None:
        if self.max_seeds < self.start:
            raise UserError(
                f"--max-seeds {self.max_seeds}: every row gets {self.start} seeds first"
            )
        if not self.eps > 0:
            raise UserError(f"--eps {self.eps:g}: give the points that count as equal, above 0")


@dataclass(frozen=True)
class Standing:
    """Where one comparison stands.

    verdicts: row -> its paired differences to the reference, judged; wanted: runs to do next;
    lost: row -> seeds whose pair is missing because a run of it failed.
    """

    verdicts: dict[str, Verdict]
    wanted: tuple[Run, ...]
    lost: dict[str, tuple[int, ...]]


def replay(
    rows: Sequence[str], rule: Rule, scores: Mapping[Run, float], failed: Collection[Run] = ()
) -> Standing:
    """The rounds as they must have happened, up to the first that lacks a run.

    scores: in points. failed: runs that were tried and left no number. Their row, or every row
    where it is the reference, gets no further seeds: its pairs are no longer a fair sample.
    """
    seeds = dict.fromkeys(rows, rule.start)
    while True:
        last = max(seeds.values(), default=0)
        needed = [
            (row, k)
            for k in range(1, last + 1)
            for row in (rule.reference, *rows)
            if row == rule.primary or k <= seeds.get(row, last)
        ]
        pairs = {
            row: [(k, (row, k), (rule.reference, k)) for k in range(1, n + 1)]
            for row, n in seeds.items()
        }
        differences = {
            row: [scores[a] - scores[b] for _, a, b in found if a in scores and b in scores]
            for row, found in pairs.items()
        }
        judged = verdicts(
            {row: values for row, values in differences.items() if values},
            rule.eps,
            primary=rule.named,
        )
        lost = {
            row: tuple(k for k, a, b in found if a in failed or b in failed)
            for row, found in pairs.items()
        }
        wanted = tuple(run for run in needed if run not in scores and run not in failed)
        undecided = [
            row
            for row, verdict in judged.items()
            if verdict.word == "undecided" and seeds[row] < rule.max_seeds and not lost[row]
        ]
        if wanted or not undecided:
            return Standing(judged, wanted, {row: ks for row, ks in lost.items() if ks})
        for row in undecided:
            seeds[row] = min(rule.max_seeds, seeds[row] + max(1, seeds[row] // SHARE))


@dataclass
class UntilDecided:
    """One data set's rounds. ``refused``: cells that cannot be run; ``until``: no round starts
    after this time (of :func:`time.monotonic`)."""

    protocol: Protocol
    dataset: str
    rule: Rule
    start: Start
    refused: Collection[tuple[str, str, str]] = ()
    until: float = math.inf
    failed: dict[Job, str] = field(default_factory=dict)
    _scores: dict[Job, float] = field(default_factory=dict)

    def finish(self) -> dict[Job, str]:
        """Start rounds until nothing is wanted. Returns the runs without a record: why."""
        done = 0
        while True:
            standings = self.standings()
            print(f"\n{self.dataset}, after {done} rounds of more seeds")
            for fusion, standing in standings.items():
                print("\n".join(lines(fusion, standing, self.rule)))
            wanted = [self.job(fusion, *run) for fusion, s in standings.items() for run in s.wanted]
            if not wanted:
                return self.failed
            if time.monotonic() >= self.until:
                print(f"out of time with {len(wanted)} runs to do: the same command continues")
                return self.failed
            done += 1
            for stage in (self._alone(wanted), Stage(f"round {done}", tuple(wanted))):
                self.failed |= Rounds(self.protocol, stage, self.start).finish()

    def standings(self) -> dict[str, Standing]:
        """Fusion -> where its comparison stands, by the records."""
        top = self.rule.start
        while True:
            self._read(top)
            found = {fusion: self._replay(fusion) for fusion in self._fusions()}
            asked = max((k for s in found.values() for _, k in s.wanted), default=0)
            if asked <= top:
                return found
            top = max(asked, min(2 * top, self.rule.max_seeds))

    def differences(self) -> dict[str, dict[str, list[float]]]:
        """Fusion -> row -> its differences to the reference in points, of every recorded pair."""
        self._read(self.rule.max_seeds)
        found: dict[str, dict[str, list[float]]] = {}
        for fusion in self._fusions():
            found[fusion] = {row: [] for row in self._rows(fusion)}
            for row, values in found[fusion].items():
                for seed in range(1, self.rule.max_seeds + 1):
                    pair = self.job(fusion, row, seed), self.job(fusion, self.rule.reference, seed)
                    if all(job in self._scores for job in pair):
                        values.append(self._scores[pair[0]] - self._scores[pair[1]])
        return found

    def job(self, fusion: str, row: str, seed: int) -> Job:
        return Job(self.dataset, row, fusion, "best", seed)

    def _replay(self, fusion: str) -> Standing:
        scores = {(j.strategy, j.seed): x for j, x in self._scores.items() if j.fusion == fusion}
        failed = {(j.strategy, j.seed) for j in self.failed if j.fusion == fusion}
        return replay(self._rows(fusion), self.rule, scores, failed - scores.keys())

    def _read(self, top: int) -> None:
        """Look for the scores that are not known yet, up to this seed."""
        jobs = [
            self.job(fusion, row, seed)
            for fusion in self._fusions()
            for row in (self.rule.reference, *self._rows(fusion))
            for seed in range(1, top + 1)
        ]
        for job, seen in self.protocol.look(j for j in jobs if j not in self._scores).items():
            if seen.summary is None:
                continue
            value = seen.summary["test"]["fused"]["metric"]
            if value is None:
                self.failed[job] = "its record has no fused test metric"
            else:
                self._scores[job] = 100 * value

    def _fusions(self) -> list[str]:
        """Those that the reference can be run with."""
        cells = {f: (self.dataset, f, self.rule.reference) for f in self.protocol.request.fusions}
        return [fusion for fusion, cell in cells.items() if cell not in self.refused]

    def _rows(self, fusion: str) -> list[str]:
        return [
            row
            for row in self.protocol.request.strategies
            if row not in (UNIMODAL, self.rule.reference)
            and (self.dataset, fusion, row) not in self.refused
        ]

    def _alone(self, wanted: Iterable[Job]) -> Stage:
        """The unimodal runs that a round's rows learn from."""
        known = menu(self.protocol.request.overrides)
        seeds = {j.seed for j in wanted if known[j.strategy].family in LEARN_FROM_UNIMODAL}
        jobs = self.protocol.unimodal(self.dataset, ["best"], sorted(seeds))
        return Stage("unimodal models of the round", tuple(jobs))


def lines(fusion: str, standing: Standing, rule: Rule) -> list[str]:
    """A line for every row of one comparison: difference in points, interval, seeds, verdict."""
    found = []
    for row, v in standing.verdicts.items():
        interval = f"[{v.low:+.2f}, {v.high:+.2f}]" if v.low is not None else ""
        word = f"equal within {rule.eps:g}" if v.word == "equal" else v.word
        more = f", about {v.more} more" if v.more else ""
        found.append(f"{fusion:8}{row:20}{v.mean:+7.2f} {interval:18} n {v.n:2} {word}{more}")
    found += [
        f"{fusion:8}{row:20}a run failed: no pair at seed {', '.join(map(str, seeds))}"
        for row, seeds in standing.lost.items()
    ]
    return [f"  {line.rstrip()}" for line in found]
