"""The parts of the GPU benchmark: each asks for short runs and makes a section of what they found.

A part that the deadline or a failure cuts off has the reason in its table.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

from bench.gpu_process import Deadline, NotMeasured, Request, Short, together
from bench.report import Section, Table
from miles_repro.records import RunRecord

PAPER_EPOCHS = 50
STEPS = 5
BF16 = "precision=bf16"
TOLERANCES = {"fp32 without TF32": 1e-3, "fp32": 2e-2, "bf16": 1e-1}
"""Largest relative difference of a loss to the CPU's after STEPS steps, set beforehand."""
ALONE = "fp32, channels_last"
OPTIONS: dict[str, tuple[str, ...]] = {
    "fp32, contiguous": ("precision.channels_last=false",),
    ALONE: (),
    "bf16, channels_last": (BF16,),
    "fp32, channels_last, compile": ("precision.compile=true",),
    "bf16, channels_last, compile": (BF16, "precision.compile=true"),
}


@dataclass(frozen=True)
class Size:
    """Training pairs, batch, depth of the ResNets, epochs of a short run, processes that share."""

    samples: int
    batch: int
    depth: int
    epochs: int
    processes: tuple[int, ...]


FULL = Size(8000, 128, 10, 6, (1, 2, 4, 8))
QUICK = Size(64, 8, 6, 2, (1, 2))


@dataclass
class Bench:
    """One measurement of one device."""

    size: Size
    device: str
    scratch: Path
    deadline: Deadline
    started: int = 0

    def request(self, *overrides: str, device: str = "", tf32: bool = True) -> Request:
        """A short run with a records folder of its own."""
        self.started += 1
        size, runs = self.size, self.scratch / f"{self.started:04d}"
        own = (f"batch_size={size.batch}", f"epochs={size.epochs}", "strategy=miles", *overrides)
        data = self.scratch / "data"
        return Request(data, runs, device or self.device, size.depth, own, tf32)

    def together(self, *requests: Request) -> list[Short]:
        return together(requests, self.deadline)


def correctness(bench: Bench) -> tuple[Section, bool]:
    """Whether the device trains what the CPU trains; the bool is false only where it does not."""
    share = STEPS * bench.size.batch / bench.size.samples
    few = (
        *("strategy=vanilla_aux", "optimizer=sgd", "optimizer.lr=0.01", "epochs=1", "seed=0"),
        *(f"budget.data_fraction={share}", "keep=[weights]"),
    )
    text = f"""\
{STEPS} steps of SGD from the same weights on the same batches, then validation, here and on the
CPU (fp32): the largest relative difference of any loss (fused and unimodal, training and
validation), and the largest difference of a weight. The tolerances were set beforehand. *fp32* is
torch's default, in which cuDNN may compute convolutions in TF32.
"""
    table = Table(["precision", "of a loss, relative", "tolerance", "within", "of a weight"])
    agrees = True
    try:
        cpu, *others = bench.together(
            bench.request(*few, device="cpu"),
            bench.request(*few, tf32=False),
            bench.request(*few),
            bench.request(*few, BF16),
        )
        for (name, tolerance), one in zip(TOLERANCES.items(), others, strict=True):
            apart = [abs(a - b) / b for a, b in zip(losses(one), losses(cpu), strict=True)]
            within = all(x <= tolerance for x in apart)  # which NaN is not
            agrees &= within
            figures = f"{max(apart):.1e}", f"{tolerance:g}", "yes" if within else "**no**"
            table.add(name, *figures, f"{weights(one, cpu):.1e}")
    except NotMeasured as why:
        missing(table, "all", why)
    return Section("correctness", "The same as on the CPU", text, [table]), agrees


def determinism(bench: Bench) -> Section:
    text = f"""\
MILES for {bench.size.epochs} epochs, the same seed twice, in two processes at the same time: the
largest difference of a loss in any epoch, and of a weight of the best epoch.
"""
    table = Table(["precision", "of a loss", "of a weight"])
    try:
        kept = ("seed=0", "keep=[weights]")
        both = [bench.request(*kept, *more) for more in ((), (), (BF16,), (BF16,))]
        a, b, c, d = bench.together(*both)
        for name, one, other in (("fp32", a, b), ("bf16", c, d)):
            loss = max(abs(x - y) for x, y in zip(losses(one), losses(other), strict=True))
            values = loss, weights(one, other)
            table.add(name, *("identical" if v == 0 else f"{v:.1e}" for v in values))
    except NotMeasured as why:
        missing(table, "all", why)
    return Section("determinism", "The same twice", text, [table])


def sharing(bench: Bench) -> tuple[Section, Short | None]:
    """Runs an hour with several processes, and what a process alone measured."""
    text = f"""\
Processes that train one run after another on one card ({ALONE}), as `hydra/launcher=local
hydra.launcher.n_jobs=<processes>` does, without MPS. *Runs per hour* is extrapolated: every process
trains {bench.size.epochs} epochs at the same time as the others, and a run of {PAPER_EPOCHS} epochs
is taken to last as long as that run, its test evaluation included, and {PAPER_EPOCHS}
- {bench.size.epochs} times its median epoch after the first. A search, or a process's own start, is
not in it. *Card memory* is all that is taken, by the processes' contexts too.
"""
    columns = ["processes", "epoch, ms", f"run of {PAPER_EPOCHS} epochs, s", "runs per hour"]
    table = Table([*columns, "to one", "card memory, MB"])
    alone, base = None, None
    for n in bench.size.processes:
        try:
            found = bench.together(*(bench.request(f"seed={i}") for i in range(n)))
        except NotMeasured as why:
            missing(table, n, why)
            continue
        alone = found[0] if n == 1 else alone
        seconds = [one.extrapolated(PAPER_EPOCHS) for one in found]
        rate = sum(3600 / s for s in seconds)
        base = rate if n == 1 else base
        epoch = statistics.mean(one.later for one in found)
        run = statistics.mean(seconds)
        used = max((one.used_mb for one in found if one.used_mb is not None), default=None)
        ratio = f"{rate / base:.2f}" if base else "-"
        table.add(n, f"{1000 * epoch:.0f}", f"{run:.0f}", f"{rate:.0f}", ratio, memory(used))
    return Section("sharing", "Several processes on one card", text, [table]), alone


def precision(bench: Bench, alone: Short | None) -> Section:
    """``alone``: the run that was measured already, of one process."""
    text = f"""\
MILES, one process, {bench.size.epochs} epochs: the median epoch after the first, with validation
and its row; *samples/s* are training samples in that time. The first epoch has cuDNN's choices and
the compiling in it. Peak memory is that of tensors. fp32 as above: torch's default.
"""
    columns = ["option", "epoch, ms", "samples/s", "to the first", "first epoch, s"]
    table = Table([*columns, "peak memory, MB"])
    base = None
    first = next(iter(OPTIONS))
    for name, overrides in OPTIONS.items():
        try:
            known = alone if name == ALONE else None
            one = known or bench.together(bench.request("seed=0", *overrides))[0]
        except NotMeasured as why:
            missing(table, name, why)
            continue
        rate = bench.size.samples / one.later
        base = rate if name == first else base
        ratio = f"{rate / base:.2f}" if base else "-"
        figures = f"{1000 * one.later:.0f}", f"{rate:,.0f}", ratio, f"{one.first:.1f}"
        table.add(name, *figures, memory(one.peak_mb))
    return Section("precision", "Memory format, bf16, compile", text, [table])


def losses(short: Short) -> list[float]:
    """Of every epoch, split and head; NaN where it was not finite."""
    scores = [s for row in short.rows for part in ("train", "val") for s in row[part].values()]
    return [math.nan if s["loss"] is None else s["loss"] for s in scores]


def weights(one: Short, other: Short) -> float:
    """Largest difference of a weight of the two runs' best epochs."""
    a, b = (RunRecord(short.folder).load_weights() for short in (one, other))
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def missing(table: Table, name: object, why: Exception) -> None:
    table.add(name, f"not measured: {why}", *["-"] * (len(table.columns) - 2))


def memory(mb: float | None) -> str:
    return "-" if mb is None else f"{mb:,.0f}"
