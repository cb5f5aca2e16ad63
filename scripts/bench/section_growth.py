"""10. Time and memory against samples, runs, modalities and classes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.report import Section, Table
from bench.timing import WATCHED
from bench.work import MODULES, Work

TEXT = """\
Every line is a process of its own that trains MLPs on synthetic samples of 784 bytes a modality
(MILES with concatenation, batches of 64) and reports the CPU time of its epochs after the first and
its peak memory. Expected: the time per sample stays the same as samples and runs grow, and is
proportional to the number of modalities; memory above that of the imported libraries grows with the
samples (held as float32: 4 bytes a value), not with the runs. Classes widen the heads alone.
"""


@dataclass(frozen=True)
class Point:
    """One training: synthetic data of this many training samples, modalities and classes."""

    samples: int
    modalities: int = 2
    classes: int = 10
    runs: int = 1
    epochs: int = 3


def measure(work: Work) -> Section:
    small = Point(samples=work.size.samples[1])
    points = {
        "samples": [replace(small, samples=n) for n in work.size.samples],
        "modalities": [replace(small, modalities=n) for n in (2, 3, 4)],
        "classes": [replace(small, classes=n) for n in (2, 10, 100, 1000)],
        "runs": [replace(small, runs=n) for n in (1, 4, 16)],
    }
    tables, raw = [], {}
    for what, series in points.items():
        table = Table(
            [what, "epoch, ms", "CPU per sample, us", "to the first line", "peak memory, MB"],
            title=f"Growth with {what}",
        )
        found = [child(work, point) for point in series]
        base = found[0]["epoch_s"] / series[0].samples
        for point, f in zip(series, found, strict=True):
            each = f["epoch_s"] / point.samples
            table.add(
                f"{getattr(point, what):,}",
                f"{1000 * f['epoch_s']:.0f}",
                f"{1e6 * each:.1f}",
                f"{each / base:.2f}",
                f"{f['peak_mb']:.0f}",
            )
        tables.append(table)
        raw[what] = [asdict(p) | f for p, f in zip(series, found, strict=True)]
    return Section("growth", "Growth", TEXT, tables, raw=raw)


def child(work: Work, point: Point) -> dict[str, Any]:
    folder = work.folder()
    request = json.dumps({**asdict(point), "folder": str(folder)})
    done = subprocess.run(
        [*WATCHED, folder / "peak", sys.executable, "-m", "bench.section_growth", request],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **MODULES},
    )
    if done.returncode:
        raise RuntimeError(f"{request} failed:\n{done.stderr[-2000:]}")
    epoch = float(done.stdout.splitlines()[-1])
    return {"epoch_s": epoch, "peak_mb": float((folder / "peak").read_text())}


def main(request: str) -> None:
    """Train one point in this process and print the CPU time of an epoch."""
    import statistics

    from bench.timing import Laps
    from bench.work import synthetic
    from miles_repro.run import run

    values = json.loads(request)
    folder = Path(values.pop("folder"))
    point = Point(**values)
    data_dir = folder / "data"
    modalities = [f"m{i}" for i in range(point.modalities)]
    synthetic(data_dir / "bench", point.samples, modalities, point.classes)
    laps = Laps()
    for seed in range(point.runs):
        laps.pause()
        run(_config(folder, modalities, point, seed), "bench", laps)
    print(statistics.median(span.cpu for span in laps.spans))


def _config(folder: Path, modalities: list[str], point: Point, seed: int) -> Any:
    from bench.work import compose, mlp, synthetic_node

    return compose(
        *("strategy=miles", "tracker=none", "runtime.device=cpu", "batch_size=64"),
        *(f"epochs={point.epochs}", f"seed={seed}"),
        *(f"runtime.data_dir={folder / 'data'}", f"runtime.runs_dir={folder / 'runs'}"),
        dataset=synthetic_node("bench", modalities, point.classes, mlp(784)),
    )


if __name__ == "__main__":
    main(sys.argv[1])
