"""Starting what is missing of a stage, through train.py, until every run has an outcome.

A round is one sweep per grid of missing runs. Rounds end when each run is done, failed or given up:

- A run that fails keeps its error.txt and is not tried again here; the next command tries it.
- A run that another process trains is waited for, and taken over if that process dies.
- A run whose process was killed without a word may have taken its sweep along: joblib then stops
  all its workers. Whatever saved an epoch since simply goes on from there. A run killed before it
  could save one gets two more tries alone, after the others, and is then given up.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from miles_repro.errors import UserError
from miles_repro.places import TRAIN
from miles_repro.protocol.stages import Job, Protocol, Stage, boxes
from miles_repro.records import CONFIG, ERROR, LAST, last_error, read_summary, status_of

LAUNCHERS = {"local": "local", "basic": "basic", "slurm": "slurm", "ray": "ray_cluster"}
"""Name here -> Hydra's name of the configuration (conf/hydra/launcher, or a plugin's own)."""

TRIES = 3
IDLE_ROUNDS = 2
HOPELESS = 3
"""So many runs in a row given up: something is wrong with the machine, not with a run."""

Start = Callable[[list[str]], object]
"""Runs one sweep with these overrides to its end."""


def sweep_command(overrides: Sequence[str], launcher: str) -> list[str]:
    choice = f"hydra/launcher={LAUNCHERS[launcher]}"
    return [*TRAIN, "-m", *overrides, choice]


def start_with(launcher: str) -> Start:
    return lambda overrides: subprocess.run(sweep_command(overrides, launcher), check=False)


@dataclass
class Rounds:
    """One stage's way to its end."""

    protocol: Protocol
    stage: Stage
    start: Start
    poll_s: float = 1.0
    failed: dict[Job, str] = field(default_factory=dict)
    _errors: dict[Job, int] = field(default_factory=dict)
    _killed: Counter[Job] = field(default_factory=Counter)

    def finish(self) -> dict[Job, str]:
        """Start and wait until every run has an outcome. Returns those without a record: why."""
        left = self.protocol.missing(self.stage.jobs)
        self._errors = {job: self._written(job, ERROR) for job in left}
        waiting, idle, given_up = False, 0, 0
        while True:
            nobody_has = {job for job in left if not self._is_running(job)}
            # In this order: a run that ends elsewhere in between is seen as done, not as free.
            left = [job for job in left if not self._has_outcome(job)]
            free = [job for job in left if job in nobody_has]
            fresh = [job for job in free if not self._killed[job]]
            if not left:
                return self.failed
            if not free:
                if not waiting:
                    print(f"waiting for {len(left)} runs in other processes", flush=True)
                waiting = True
                time.sleep(self.poll_s)
            elif fresh:
                idle = 0 if self._launch(fresh) else idle + 1
                if idle == IDLE_ROUNDS:
                    self._give_up(fresh, "the launcher did not start it")
            else:
                self._launch(free[:1])
                if self._has_outcome(free[0]):
                    given_up = given_up + 1 if free[0] in self.failed else 0
                if given_up == HOPELESS:
                    self._give_up(free, "not tried again: one run after the other was killed")

    def _launch(self, jobs: list[Job]) -> bool:
        """One round. Returns whether anything happened to any of the runs."""
        before = {job: self._traces(job) for job in jobs}
        for grid in boxes(jobs):
            self.start([*grid, *self.protocol.request.common])
        happened = False
        for job in jobs:
            begun, saved = self._traces(job)
            was_begun, was_saved = before[job]
            if self._has_outcome(job, started=True) or self._is_running(job) or saved != was_saved:
                happened = True
            elif begun != was_begun or self._killed[job]:
                happened = True
                self._killed[job] += 1
                if self._killed[job] == TRIES:
                    why = f"its process was killed {TRIES} times (out of memory?)"
                    self._give_up([job], f"{why}; record: {self.protocol.folder(job)}")
        return happened

    def _give_up(self, jobs: Sequence[Job], why: str) -> None:
        for job in jobs:
            if not self._has_outcome(job):
                self.failed[job] = why

    def _has_outcome(self, job: Job, started: bool = False) -> bool:
        """Whether it is done, failed or given up; ``started``: this process has just tried it."""
        if job in self.failed:
            return True
        try:
            folder = self.protocol.config(job).run_dir
        except UserError as e:  # it needs records that failed runs should have made
            if started:
                self.failed[job] = str(e)
            return started
        if read_summary(folder) is not None:
            return True
        if self._written(job, ERROR) not in (0, self._errors[job]) and not self._is_running(job):
            self.failed[job] = f"{last_error(folder)} (log: {folder / ERROR})"
        return job in self.failed

    def _is_running(self, job: Job) -> bool:
        folder = self.protocol.folder(job)
        return folder is not None and status_of(folder) == "running"

    def _traces(self, job: Job) -> tuple[int, int]:
        """Change when the run is begun, and when it saves an epoch."""
        return self._written(job, CONFIG), self._written(job, LAST)

    def _written(self, job: Job, name: str) -> int:
        """When a file of the run was last written (ns), 0 where there is none."""
        folder = self.protocol.folder(job)
        try:
            return (folder / name).stat().st_mtime_ns if folder else 0
        except OSError:
            return 0
