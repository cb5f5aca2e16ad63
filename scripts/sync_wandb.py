"""Upload to W&B whatever it lacks of the run records: after offline runs, or after trouble.

    python scripts/sync_wandb.py                     all mirrored runs below results/runs
    python scripts/sync_wandb.py /scratch/runs --jobs 8
    python scripts/sync_wandb.py --all --project demo   also runs made with tracker=none

Safe to repeat and to interrupt: the server is asked first, and only missing runs are sent.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from miles_repro.errors import UserError, ended
from miles_repro.machine import stop_on_signals


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="?", type=Path, default=Path("results/runs"))
    parser.add_argument("--jobs", type=int, default=4, help="uploads at a time (default 4)")
    parser.add_argument("--dry-run", action="store_true", help="list what is missing, send nothing")
    parser.add_argument("--all", action="store_true", help="also runs that had no tracker")
    parser.add_argument("--project", default="miles-repro", help="project for --all")
    parser.add_argument("--entity", help="entity for --all")
    args = parser.parse_args()
    stop_on_signals()
    return ended(partial(sync, args))


def sync(args: argparse.Namespace) -> int:
    """Exit status: 0 all there, 1 some uploads failed or some records cannot be read."""
    import miles_repro.records as run_records
    from miles_repro.tracking import connection
    from miles_repro.tracking import sync as syncing

    if not args.runs.is_dir():
        raise UserError(f"no folder {args.runs}: name the folder that holds the run records")
    default = {"project": args.project, "entity": args.entity} if args.all else None
    ignored: list[run_records.Ignored] = []
    records, open_runs = syncing.plan(args.runs, default, ignored)
    unread = run_records.tell(ignored)
    if open_runs:
        print(f"{open_runs} runs have not ended and are left out")
    if not records:
        print(f"no mirrored runs below {args.runs}")
        return unread
    connection.require_server()
    todo = syncing.missing(records)
    print(f"{len(records)} runs, {len(records) - len(todo)} on the server, {len(todo)} to upload")
    if args.dry_run:
        for item in todo:
            print(f"  {item.folder}")
        return unread
    done = 0

    def report(item: syncing.Upload, trouble: str | None) -> None:
        nonlocal done
        done += 1
        print(f"[{done}/{len(todo)}] {item.folder}: {trouble or 'uploaded'}", flush=True)

    return 1 if syncing.upload_all(todo, args.jobs, report) else unread


if __name__ == "__main__":
    sys.exit(main())
