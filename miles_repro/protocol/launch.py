"""Starting what is missing of a stage, through train.py, until every run has an outcome.

A round is one sweep of the missing runs. Rounds end when each run is done, failed or given up:

- A run that fails keeps its error.txt and is not tried again here; the next command tries it.
- A run that another process trains is waited for, and taken over if that process dies.
- A run whose process was killed without a word may have taken its sweep along: joblib then stops
  all its workers. Whatever saved an epoch since simply goes on from there. A run killed before it
  could save one gets two more tries alone, after the others, and is then given up.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from miles_repro.places import TRAIN
from miles_repro.protocol.jobs import Job, Stage
from miles_repro.protocol.stages import Protocol, Seen, unfinished
from miles_repro.records import ERROR, last_error

LAUNCHERS = {"local": "local", "in_process": "in_process", "slurm": "slurm", "ray": "ray_cluster"}
"""Name here -> Hydra's name of the configuration (conf/hydra/launcher, or a plugin's own)."""

TRIES = 3
IDLE_ROUNDS = 2
HOPELESS = 3
"""So many runs in a row given up: something is wrong with the machine, not with a run."""

Start = Callable[[Sequence[Job]], object]
"""Runs one sweep of these jobs to its end."""


def sweep_command(file: Path, common: Sequence[str], launcher: str) -> list[str]:
    choice = f"hydra/launcher={LAUNCHERS[launcher]}"
    return [*TRAIN, "-m", f"hydra.sweeper.jobs='{file}'", *common, choice]


def start_with(launcher: str, common: Sequence[str]) -> Start:
    """``common``: overrides of every run."""

    def start(jobs: Sequence[Job]) -> None:
        with tempfile.TemporaryDirectory(prefix="miles-sweep-") as folder:
            file = Path(folder) / "jobs.txt"
            file.write_text("\n".join(job.line for job in jobs), encoding="utf-8")
            subprocess.run(sweep_command(file, common, launcher), check=False)

    return start


@dataclass
class Rounds:
    """One stage's way to its end. Every round looks at the records once, after its sweeps."""

    protocol: Protocol
    stage: Stage
    start: Start
    poll_s: float = 1.0
    failed: dict[Job, str] = field(default_factory=dict)
    _seen: dict[Job, Seen] = field(default_factory=dict)
    _old_errors: dict[Job, int] = field(default_factory=dict)
    _killed: Counter[Job] = field(default_factory=Counter)

    def finish(self) -> dict[Job, str]:
        """Start and wait until every run has an outcome. Returns those without a record: why."""
        self._seen = self.protocol.look(self.stage.jobs)
        left = unfinished(self._seen)
        self._old_errors = {job: self._seen[job].failed for job in left}
        if left:
            print(f"\n{left[0].dataset}, {self.stage.name}: {len(left)} runs to do", flush=True)
        waiting, idle, given_up = False, 0, 0
        while True:
            left = [job for job in left if not self._has_outcome(job)]
            free = [job for job in left if self._seen[job].state != "running"]
            fresh = [job for job in free if not self._killed[job]]
            if not left:
                return self.failed
            if not free:
                if not waiting:
                    print(f"waiting for {len(left)} runs in other processes", flush=True)
                waiting = True
                time.sleep(self.poll_s)
                self._seen = self.protocol.look(left)
            elif fresh:
                idle = 0 if self._launch(fresh, left) else idle + 1
                if idle == IDLE_ROUNDS:
                    self._give_up(fresh, "the launcher did not start it")
            else:
                self._launch(free[:1], left)
                if self._has_outcome(free[0]):
                    given_up = given_up + 1 if free[0] in self.failed else 0
                if given_up == HOPELESS:
                    self._give_up(free, "not tried again: one run after the other was killed")

    def _launch(self, jobs: list[Job], left: list[Job]) -> bool:
        """One round. Returns whether anything happened to any of its runs."""
        self.start(jobs)
        before, self._seen = self._seen, self.protocol.look(left)
        happened = False
        for job in jobs:
            was, now = before[job], self._seen[job]
            if now.folder is None:  # it needs records that failed runs should have made
                self.failed[job] = now.why
            if self._has_outcome(job) or now.state == "running" or now.saved != was.saved:
                happened = True
            elif now.begun != was.begun or self._killed[job]:
                happened = True
                self._killed[job] += 1
                if self._killed[job] == TRIES:
                    why = f"its process was killed {TRIES} times (out of memory?)"
                    self._give_up([job], f"{why}; record: {now.folder}")
        return happened

    def _give_up(self, jobs: Sequence[Job], why: str) -> None:
        for job in jobs:
            if not self._has_outcome(job):
                self.failed[job] = why

    def _has_outcome(self, job: Job) -> bool:
        """Whether it is done, failed or given up."""
        seen = self._seen[job]
        if job in self.failed or seen.state == "done":
            return True
        if seen.failed not in (0, self._old_errors[job]) and seen.state != "running":
            assert seen.folder is not None
            self.failed[job] = f"{last_error(seen.folder)} (log: {seen.folder / ERROR})"
        return job in self.failed
