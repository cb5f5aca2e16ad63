"""Create or refresh the W&B workspaces and the reports of a project.

python scripts/dashboards.py --project miles-repro        for the tables that were logged last
python scripts/dashboards.py --dry-run dashboards.json    only write it, for the tables in --results
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from miles_repro.errors import UserError, ended


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entity", help="default: your default entity")
    parser.add_argument("--project", default="miles-repro")
    parser.add_argument("--dry-run", type=Path, metavar="FILE", help="write the JSON, send nothing")
    parser.add_argument("--results", type=Path, default=Path("results/local"))
    return ended(partial(refresh, parser.parse_args()))


def refresh(args: argparse.Namespace) -> int:
    from miles_repro.tracking import connection, dashboards
    from miles_repro.tracking.exchange import read_table

    connection.prepare_environment()
    try:
        if args.dry_run:
            tables = sorted((args.results / "tables").glob("*.csv"))
            names = [path.stem for path in tables if len(read_table(path))]
            spec = dashboards.spec(args.entity or "entity", args.project, names)
            args.dry_run.write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
            print(
                f"written: {args.dry_run} ({len(names)} tables in {len(spec['reports'])} reports)"
            )
            return 0
        connection.require_server()
        print("\n".join(dashboards.save(args.entity, args.project)))
    except OSError as error:
        raise UserError(f"cannot write {args.dry_run}: {error.strerror}") from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
