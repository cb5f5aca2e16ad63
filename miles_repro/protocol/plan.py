"""The plan: what a request comes to, what of it is done, and what the rest will take."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from miles_repro.machine import cores, duration
from miles_repro.protocol.stages import Job, Protocol, Stage

PER_RUN_S = 0.2
"""Hydra's composing and scheduling of one run."""


BUSY = 0.75
"""Below this share of its cores' time a measurement is told to be disturbed."""


@dataclass(frozen=True)
class Line:
    """One stage of one data set. seconds: of one worker, None where nothing was measured."""

    dataset: str
    stage: str
    runs: int
    missing: tuple[Job, ...]
    seconds: float | None = None


@dataclass
class Plan:
    """refused: cell (dataset, fusion, strategy) -> why it cannot be run."""

    trials: int
    seeds: int
    threads: int
    device: str
    lines: list[Line] = field(default_factory=list)
    refused: dict[tuple[str, str, str], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return sum(len(line.missing) for line in self.lines)

    @property
    def seconds(self) -> float | None:
        known = [line.seconds for line in self.lines if line.seconds is not None]
        return sum(known) if known else None

    def keep(self, stage: Stage) -> Stage:
        """The stage without what cannot be run."""
        return Stage(stage.name, tuple(j for j in stage.jobs if j.cell not in self.refused))


def make_plan(protocol: Protocol, datasets: list[str], *, measure: bool) -> Plan:
    """Count for every stage what is missing; ``measure``: and time it (imports torch)."""
    from miles_repro.protocol.stages import UNIMODAL

    config = protocol.config(Job(datasets[0], UNIMODAL[0], "concat", 0, 0))
    plan = Plan(
        config.budget.trials, config.budget.seeds, config.runtime.threads, config.runtime.device
    )
    for dataset in datasets:
        lines = [(stage, _new(protocol, stage)) for stage in protocol.stages(dataset)]
        cells = list(dict.fromkeys((j.strategy, j.fusion) for _, jobs in lines for j in jobs))
        if cells:
            _look_closer(plan, protocol, dataset, cells, lines, measure=measure)
        else:
            plan.lines += [Line(dataset, s.name, len(s.jobs), ()) for s, _ in lines if s.jobs]
    return plan


def _new(protocol: Protocol, stage: Stage) -> list[Job]:
    """The missing jobs, less those that an earlier stage will have done."""
    repeated = [
        job
        for job in stage.jobs
        if job.trial == "best" and job.seed == 0 and job.fixed[0] in ("", "strategy.source")
    ]
    unknown = {job for job in repeated if protocol.folder(job) is None}
    return protocol.missing(job for job in stage.jobs if job not in unknown)


def _look_closer(
    plan: Plan,
    protocol: Protocol,
    dataset: str,
    cells: list[tuple[str, str]],
    lines: list[tuple[Stage, list[Job]]],
    *,
    measure: bool,
) -> None:
    from miles_repro.protocol.estimate import costs, refusals

    refused = refusals(protocol, dataset, cells)
    for (strategy, fusion), why in refused.items():
        plan.refused[dataset, fusion, strategy] = why
    found = costs(protocol, dataset, [c for c in cells if c not in refused]) if measure else {}
    for stage, jobs in lines:
        todo = tuple(job for job in jobs if job.cell not in plan.refused)
        runs = len(plan.keep(stage).jobs)
        prices = [found[job.strategy, job.fusion].run_s + PER_RUN_S for job in todo if found]
        if runs:
            plan.lines.append(Line(dataset, stage.name, runs, todo, sum(prices) if found else None))
    if not found:
        return
    share = next(iter(found.values())).share
    plan.notes.append(
        f"{dataset}, seconds an epoch and a run, measured here with two epochs on "
        f"{100 * share:.3g} % of the data, scaled (* scaled from the other fusion):"
    )
    for strategy in dict.fromkeys(s for s, _ in found):
        texts = [
            f"{fusion} {cost.epoch_s:.3g} / {cost.run_s:.3g}{'' if cost.measured else ' *'}"
            for (s, fusion), cost in found.items()
            if s == strategy
        ]
        plan.notes.append(f"  {strategy:18}{'   '.join(texts)}")
    cpu = statistics.median(cost.cpu for cost in found.values()) / plan.threads
    if cpu < BUSY and not _on_gpu(plan.device):
        plan.notes.append(
            f"This machine is busy: runs got {100 * cpu:.0f} % of their cores' time. On a "
            f"free one expect about {100 * cpu:.0f} % of the times given here."
        )


def show(plan: Plan, not_prepared: dict[str, str], workers: int, price: float | None) -> None:
    """Print the plan: nothing has been started yet."""
    print(f"{plan.trials} trials a cell, the winner of each over {plan.seeds} seeds")
    print(f"{'data set':14}{'stage':28}{'runs':>7}{'done':>7}{'to do':>7}  time on one worker")
    for line in plan.lines:
        todo = len(line.missing)
        time = duration(line.seconds) if line.seconds else ""
        print(
            f"{line.dataset:14}{line.stage:28}{line.runs:7}{max(0, line.runs - todo):7}{todo:7}"
            f"  {time}"
        )
    for note in plan.notes:
        print(note)
    for (dataset, fusion, strategy), why in plan.refused.items():
        print(f"left out: {dataset} {fusion} {strategy}: {why}")
    for name, command in not_prepared.items():
        print(f"not prepared: {name}: {command} (docs/data.md); the rest goes on")
    print(_total(plan, workers, price), flush=True)


def _total(plan: Plan, workers: int, price: float | None) -> str:
    text = f"{plan.missing} runs to do"
    if plan.seconds is None:
        return text
    hours = plan.seconds / 3600
    unit = "GPU-hours" if _on_gpu(plan.device) else "core-hours"
    text += (
        f": about {duration(plan.seconds / workers)} with {workers} workers "
        f"({cores()} cores here), {hours * plan.threads:.2g} {unit}"
    )
    return text + (f", {price * hours:.2f} at {price:g} an hour" if price else "")


def _on_gpu(device: str) -> bool:
    import torch

    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
