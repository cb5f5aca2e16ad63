"""Measure one GPU within 8 minutes and write results/bench/gpu.md.

    python scripts/bench/gpu.py                        (make bench-gpu)
    python scripts/bench/gpu.py --device cpu --quick   does it run? Tiny sizes; prints only

Needs no prepared data and no network. Exit status: 0 measured, 1 the GPU computes something else
than the CPU, 2 no GPU or a mistake. What does not fit the time is named in the report.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any numerical library starts its threads
REPO = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(REPO / "scripts"), str(REPO)]  # works without an installation

if TYPE_CHECKING:
    from bench.report import Section

SPARE_S = 20.0
"""Of the time, for starting, and for the report after the last process was ended."""


def main() -> int:
    from miles_repro.errors import ended

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu with --quick")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, numbers without meaning")
    parser.add_argument("--minutes", type=float, default=8.0, help="in all (%(default)g)")
    args = parser.parse_args()
    return ended(partial(measure, args), "interrupted: nothing is kept")


def measure(args: argparse.Namespace) -> int:
    import torch

    from miles_repro.errors import UserError

    if args.device == "cpu" and not args.quick:
        raise UserError("--device cpu only tries the code: add --quick")
    if args.device != "cpu" and not torch.cuda.is_available():
        raise UserError("torch finds no GPU here: nothing was measured")
    from bench import gpu_parts, report
    from bench.gpu_process import CLASSES, DATA, MODALITIES, SHAPE, Deadline
    from bench.work import synthetic
    from miles_repro.records import require_writable

    out = REPO / "results" / "bench"
    if not args.quick:
        require_writable(out)
    began, where = time.perf_counter(), report.origin()
    scratch = Path(tempfile.mkdtemp(prefix="bench-gpu-"))
    try:
        size = gpu_parts.QUICK if args.quick else gpu_parts.FULL
        deadline = Deadline(60 * args.minutes - (0 if args.quick else SPARE_S))
        bench = gpu_parts.Bench(size, args.device, scratch, deadline)
        synthetic(scratch / "data" / DATA, size.samples, MODALITIES, CLASSES, SHAPE)
        same, agrees = gpu_parts.correctness(bench)
        twice = gpu_parts.determinism(bench)
        shared, alone = gpu_parts.sharing(bench)
        found = [same, twice, gpu_parts.precision(bench, alone), shared]
        device = alone.device_name if alone else args.device
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = render(found, where, time.perf_counter() - began, device)
    if args.quick:
        print(text)
    else:
        (out / "gpu.md").write_text(text + "\n")
        print(f"report: {out / 'gpu.md'}")
    return 0 if agrees else 1


def render(sections: list[Section], where: dict[str, Any], seconds: float, device: str) -> str:
    from bench import report

    lines = [
        "# Speed on a GPU",
        "",
        "`make bench-gpu` measures this: two ResNets at the paper's budget on synthetic pairs of "
        "28 x 28 x 1, as many and in such batches as S-MNIST's training has. Wall time; every "
        "number is from a process of its own that has trained a little before.",
        "",
        f"Device: {device}. Machine: {report.machine(where)}.",
        "",
    ]
    for section in sections:
        lines += report.section_lines(report.as_json(section, where, seconds))
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    sys.exit(main())
