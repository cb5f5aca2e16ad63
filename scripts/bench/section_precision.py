"""9. Memory format, bf16 and torch.compile: what they gain and what they do to the result."""

from __future__ import annotations

import statistics
from functools import partial

import torch

from bench.report import Section, Table
from bench.timing import Laps, Span, interleaved
from bench.work import Work
from miles_repro.run import run

OPTIONS: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "contiguous": ("precision.channels_last=false",),
    "bf16": ("precision=bf16",),
    "compile": ("precision.compile=true",),
}
TEXT = """\
Small CNN, fused + unimodal losses; epochs after the first, so compiling is not in the ratio (the
column *first epoch*, the slowest of them, has it). Each repetition is another seed; *test* is the
fused accuracy of the best validation epoch, mean and standard deviation over seeds, *difference*
the mean of the paired differences to fp32 with the standard error. Every option is part of a run's
id: results of different precision never mix. Evaluation is always fp32.
"""


def measure(work: Work) -> Section:
    tables, raw = [], {}
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        table, one = on_device(work, device)
        tables.append(table)
        raw[device] = one
    text = TEXT if "cuda" in devices else TEXT + "\nNo GPU was at hand: nothing here ran on CUDA.\n"
    return Section("precision", "Precision options", text, tables, raw=raw)


def on_device(work: Work, device: str) -> tuple[Table, dict[str, object]]:
    test: dict[str, list[float]] = {}
    first: dict[str, list[float]] = {}
    cases = {k: partial(one_run, work, device, k, test, first) for k in OPTIONS}
    broken: dict[str, str] = {}
    for name in [k for k in OPTIONS if k == "compile"]:  # needs a C++ compiler on a CPU
        try:
            cases[name]()
        except Exception as error:  # whatever the compiler's absence raises is the finding
            broken[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:80]}"
            del cases[name]
        test.pop(name, None)
    series = interleaved(cases, work.size.seeds)
    table = Table(
        ["option", "epoch, ms", "fp32 / it, CPU", "first epoch, s", "test", "difference to fp32"],
        title=device,
    )
    for name in cases:
        gain = series.ratio("fp32", name, "cpu" if device == "cpu" else "wall")
        pairs = [a - b for a, b in zip(test[name], test["fp32"], strict=True)]
        table.add(
            name,
            f"{1000 * series.median(name).cpu:.0f}",
            gain,
            f"{max(first[name]):.1f}",
            f"{statistics.mean(test[name]):.4f} ± {spread(test[name]):.4f}",
            f"{statistics.mean(pairs):+.4f} ± {spread(pairs) / len(pairs) ** 0.5:.4f}",
        )
    for name, reason in broken.items():
        table.add(name, "-", "-", "-", "-", f"not run: {reason}")
    return table, {"spans": series.raw(), "test": test}


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def one_run(
    work: Work,
    device: str,
    option: str,
    test: dict[str, list[float]],
    first: dict[str, list[float]],
) -> list[Span]:
    seed = len(test.get(option, []))
    config = work.config(
        "cnn",
        *("strategy=vanilla_aux", f"epochs={work.size.epochs}", f"seed={seed}"),
        *(f"runtime.device={device}", *OPTIONS[option]),
    )
    laps = Laps(first=True)
    summary = run(config, "bench", laps).summary
    assert summary is not None
    test.setdefault(option, []).append(summary["test"]["fused"]["metric"])
    first.setdefault(option, []).append(laps.spans[0].wall)
    return laps.spans[1:]
