"""Measure speed and write results/bench/report.md.

    python scripts/bench                          every section
    python scripts/bench --sections loop,sweep    only these; the others' results are kept
    python scripts/bench --quick                  does everything run? Prints, keeps nothing

Ratios are taken side by side, but an idle machine gives narrower spreads. Needs the prepared data
sets smnist_mini and mfeat (make data). On a GPU: make bench-gpu.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any numerical library starts its threads
REPO = Path(__file__).resolve().parents[2]
sys.path[:1] = [str(REPO / "scripts"), str(REPO)]  # works without an installation

SECTIONS = (
    *("loop", "strategies", "sweep", "decision", "orchestration", "records", "data", "features"),
    *("precision", "growth"),
)
DATASETS = ("smnist_mini", "mfeat")


def main() -> int:
    from miles_repro.errors import ended

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sections", default=",".join(SECTIONS), help="comma-separated (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, numbers without meaning")
    parser.add_argument("--out", type=Path, help="folder of the report (results/bench)")
    parser.add_argument("--data-dir", type=Path, help="prepared data (default: $MILES_DATA, data)")
    args = parser.parse_args()
    return ended(partial(measure, args), "interrupted: sections measured so far are kept")


def measure(args: argparse.Namespace) -> int:
    from bench import report
    from bench.work import FULL, QUICK, Work
    from miles_repro.errors import UserError
    from miles_repro.records import require_writable

    chosen = args.sections.split(",")
    if unknown := [s for s in chosen if s not in SECTIONS]:
        raise UserError(f"no section {', '.join(unknown)}: choose among {', '.join(SECTIONS)}")
    data_dir = args.data_dir or Path(os.environ.get("MILES_DATA", REPO / "data"))
    for name in DATASETS:
        if not (data_dir / name / "manifest.json").exists():
            raise UserError(f"no prepared {name} in {data_dir}: run make data")
    out = args.out or (None if args.quick else REPO / "results" / "bench")
    if out:
        try:
            require_writable(out)
        except UserError:
            raise UserError(f"--out {out} cannot be written: nothing was measured") from None
    found = report.read(out / "results.json") if out else {}
    scratch = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        work = Work(QUICK if args.quick else FULL, scratch, data_dir.resolve())
        for key in chosen:
            print(f"{key} ...", file=sys.stderr, flush=True)
            where, started = report.origin(), time.perf_counter()
            section = importlib.import_module(f"bench.section_{key}").measure(work)
            seconds = time.perf_counter() - started
            print(f"{key}: {seconds:.0f} s", file=sys.stderr, flush=True)
            found[key] = report.as_json(section, where, seconds)
            found = {k: found[k] for k in SECTIONS if k in found}
            if out:
                (out / "results.json").write_text(json.dumps(found, indent=1) + "\n")
                (out / "report.md").write_text(report.render(found) + "\n")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"report: {out / 'report.md'}" if out else report.render(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
