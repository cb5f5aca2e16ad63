"""7. Several seeds in one pass against one after the other."""

from __future__ import annotations

from functools import partial

import torch

from miles_repro.bench.report import Section, Table
from miles_repro.bench.timing import Laps, Span, interleaved
from miles_repro.bench.work import NAMES, Encoder, Work
from miles_repro.config import Config
from miles_repro.run import run, run_all

STACK = 4
TEXT = f"""\
An epoch of training and validation of each of {STACK} seeds of MILES with concatenation: one run
after the other, and as a stack (`seed=[0,1,2,3]`), whose forward and backward passes are one
(`miles_repro/stacked.py`). Below 1, stacking loses. It is made for GPUs, which a small network
leaves idle; on a CPU the batches of every run fill a core by themselves.
"""


def measure(work: Work) -> Section:
    tables, raw = [], {}
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        clock = "cpu" if device == "cpu" else "wall"
        columns = ["encoders", "one by one, ms", f"stack of {STACK}, ms", f"ratio, {clock}"]
        table = Table(columns, title=device)
        for encoder in NAMES:
            cases = {
                "alone": partial(alone, work, encoder, device),
                "stack": partial(stack, work, encoder, device),
            }
            series = interleaved(cases, work.size.repeats)
            times = (getattr(series.median(case), clock) for case in cases)
            table.add(
                NAMES[encoder],
                *(f"{1000 * seconds:.0f}" for seconds in times),
                series.ratio("alone", "stack", clock),
            )
            raw[f"{device}/{encoder}"] = series.raw()
        tables.append(table)
    text = TEXT if torch.cuda.is_available() else TEXT + "\nNo GPU was at hand.\n"
    return Section("stacks", "Stacks of runs", text, tables, raw=raw)


def seeds(work: Work, encoder: Encoder, device: str) -> list[Config]:
    first = work.config(
        encoder, "strategy=miles", f"epochs={work.size.epochs}", f"runtime.device={device}"
    )
    return [first.model_copy(update={"seed": seed}) for seed in range(STACK)]


def alone(work: Work, encoder: Encoder, device: str) -> list[Span]:
    laps = Laps()
    for config in seeds(work, encoder, device):
        laps.pause()
        run(config, "bench", laps)
    return laps.spans


def stack(work: Work, encoder: Encoder, device: str) -> list[Span]:
    configs = [c.model_copy(update={"stacked": True}) for c in seeds(work, encoder, device)]
    laps = Laps()

    def report(config: Config, row: dict[str, object]) -> None:
        if config.seed == STACK - 1:  # the last one to report an epoch
            laps()

    run_all(configs, "bench", report)
    return [Span(s.wall / STACK, s.cpu / STACK) for s in laps.spans]
