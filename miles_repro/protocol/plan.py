"""The plan: what a request comes to, what of it is done, and what the rest will take."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from miles_repro.machine import cores, duration
from miles_repro.protocol.decide import Rule, UntilDecided
from miles_repro.protocol.estimate import Cell, Cost, costs, gpu_flops, refusals, unit
from miles_repro.protocol.jobs import Job, Stage
from miles_repro.protocol.outlook import expected_runs, outlook
from miles_repro.protocol.stages import Protocol, unfinished

PER_RUN_S = 0.2
"""Hydra's composing and scheduling of one run."""

BUSY = 0.75
"""Below this share of its cores' time a measurement is told to be disturbed."""


@dataclass(frozen=True)
class Line:
    """One stage of one data set. seconds: of one worker, None where nothing was measured; flops: of
    the missing runs, 0 where nothing was counted."""

    dataset: str
    stage: str
    runs: int
    missing: tuple[Job, ...]
    seconds: float | None = None
    flops: float = 0.0


@dataclass(frozen=True)
class Machine:
    """For what the plan gives times. price: of an hour on one worker; tflops, use: a GPU's peak and
    the share of it that training reaches, both assumptions."""

    workers: int
    price: float | None = None
    tflops: float = 19.5
    use: float = 0.3


@dataclass
class Plan:
    """refused: cell (data set, fusion, row) -> why it cannot be run; unprepared: data sets -> the
    command that prepares them."""

    trials: int
    seeds: int
    threads: int
    device: str
    unprepared: dict[str, str]
    lines: list[Line] = field(default_factory=list)
    refused: dict[Cell, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Runs that can be started."""
        return sum(len(o.missing) for o in self.lines if o.dataset not in self.unprepared)

    @property
    def seconds(self) -> float | None:
        known = [line.seconds for line in self.lines if line.seconds is not None]
        return sum(known) if known else None

    def keep(self, stage: Stage) -> Stage:
        """The stage without what cannot be run."""
        return Stage(stage.name, tuple(j for j in stage.jobs if j.cell not in self.refused))


def make_plan(protocol: Protocol, *, measure: bool, rule: Rule | None = None) -> Plan:
    """Count for every stage what is missing; ``measure``: and time it (imports torch). ``rule``:
    with the seeds that deciding by it should take. Data that is not prepared is only counted."""
    first = protocol.options(protocol.request.datasets[0])
    budget, runtime = first["budget"], first["runtime"]
    sizes = budget["trials"], budget["seeds"], runtime["threads"]
    plan = Plan(*sizes, runtime["device"], protocol.not_prepared())
    for dataset in protocol.request.datasets:
        stages = [stage for stage in protocol.stages(dataset) if stage.jobs]
        units = list(dict.fromkeys(unit(job) for stage in stages for job in stage.jobs))
        ready = dataset not in plan.unprepared
        _tell(f"{dataset}: looking for what is done of {sum(len(s.jobs) for s in stages)} runs")
        todo = set(unfinished(protocol.look(job for stage in stages for job in stage.jobs)))
        if ready and (todo or rule):
            plan.refused |= refusals(protocol, units)
        stages = [plan.keep(stage) for stage in stages]
        if rule:
            stages.append(_deciding(plan, protocol, dataset, rule))
        _add(plan, protocol, dataset, stages, todo, measure=measure and ready)
    return plan


def _deciding(plan: Plan, protocol: Protocol, dataset: str, rule: Rule) -> Stage:
    rounds = UntilDecided(protocol, dataset, rule, print, plan.refused)
    found = outlook(rounds)
    if found:
        plan.notes += [f"{dataset}, seeds until decided:", *(one.text(rule) for one in found)]
    return Stage("until decided, expected", tuple(expected_runs(rounds, found)))


def _add(
    plan: Plan,
    protocol: Protocol,
    dataset: str,
    stages: list[Stage],
    todo: set[Job],
    *,
    measure: bool,
) -> None:
    """A line for every stage, with times and operations where they are asked for."""
    expected = [job for stage in stages if stage.name.startswith("until") for job in stage.jobs]
    todo = todo | set(protocol.missing(expected))
    missing = [tuple(job for job in stage.jobs if job in todo) for stage in stages]
    units = list(dict.fromkeys(unit(job) for jobs in missing for job in jobs))
    found: dict[Cell, Cost] = {}
    flops: dict[Cell, float] = {}
    if measure and units:
        found = costs(protocol, units, _tell)
        flops = gpu_flops(protocol, units)
        plan.notes += _timings(plan, dataset, found)
    for stage, jobs in zip(stages, missing, strict=True):
        if stage.jobs:
            seconds = sum(found[job.cell].run_s + PER_RUN_S for job in jobs) if found else None
            operations = sum(flops[job.cell] for job in jobs) if flops else 0.0
            plan.lines.append(Line(dataset, stage.name, len(stage.jobs), jobs, seconds, operations))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _timings(plan: Plan, dataset: str, found: dict[Cell, Cost]) -> Iterable[str]:
    share = next(iter(found.values())).share
    yield (
        f"{dataset}, seconds an epoch and a run, from two epochs on {100 * share:.3g} % of the\n"
        "data measured here and scaled (* scaled from the other fusion):"
    )
    for row in dict.fromkeys(row for _, _, row in found):
        texts = [
            f"{fusion} {cost.epoch_s:.3g} / {cost.run_s:.3g}{'' if cost.measured else ' *'}"
            for (_, fusion, name), cost in found.items()
            if name == row
        ]
        yield f"  {row:18}{'   '.join(texts)}"
    cpu = statistics.median(cost.cpu for cost in found.values()) / plan.threads
    if cpu < BUSY and not _on_gpu(plan.device):
        yield (
            f"This machine is busy: runs got {100 * cpu:.0f} % of their cores' time.\n"
            f"On a free one expect about {100 * cpu:.0f} % of the times given here."
        )


def show(plan: Plan, machine: Machine) -> None:
    """Print the plan: nothing has been started yet."""
    print(
        f"{plan.trials} trials a cell with seed 0, the winner of each over {plan.seeds} other seeds"
    )
    print(f"{'data set':14}{'stage':28}{'runs':>7}{'done':>7}{'to do':>7}  {'one worker':>10}")
    for line in plan.lines:
        todo = len(line.missing)
        _row(line.dataset, line.stage, line.runs, todo, line.seconds)
    todo = sum(len(line.missing) for line in plan.lines)
    _row("total", "", sum(line.runs for line in plan.lines), todo, plan.seconds)
    for note in plan.notes:
        print(note)
    for (dataset, fusion, row), why in plan.refused.items():
        print(f"left out: {dataset} {fusion} {row}: {why}")
    for name, command in plan.unprepared.items():
        print(f"not prepared: {name}: {command} (docs/data.md)")
    waiting = f", {todo - plan.missing} more once prepared" if plan.unprepared else ""
    print(_total(plan, machine, waiting), flush=True)


def _row(dataset: str, stage: str, runs: int, todo: int, seconds: float | None) -> None:
    time = duration(seconds) if seconds else ""
    print(f"{dataset:14}{stage:28}{runs:7}{runs - todo:7}{todo:7}  {time:>10}".rstrip())


def _total(plan: Plan, machine: Machine, waiting: str) -> str:
    text = f"{plan.missing} runs to do{waiting}"
    if plan.seconds is None:
        return text
    hours = plan.seconds / 3600
    gpus = _on_gpu(plan.device)
    spent, unit_of_time = (1, "GPU-hours") if gpus else (plan.threads, "core-hours")
    text += (
        f": about {duration(plan.seconds / machine.workers)} with {machine.workers} workers "
        f"({cores()} cores here),\n{hours * spent:.2g} {unit_of_time}"
    )
    text += f", {machine.price * hours:.2f} at {machine.price:g} an hour" if machine.price else ""
    flops = sum(line.flops for line in plan.lines)
    gpu = flops / (1e12 * machine.tflops * machine.use) / 3600
    return text + (
        f"\non a GPU: {flops:.2g} floating-point operations, counted; {gpu:.2g} GPU-hours\n"
        f"if it does {machine.tflops:g} TFLOP/s (--tflops) at {100 * machine.use:g} % use (--use)"
    )


def _on_gpu(device: str) -> bool:
    import torch

    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
