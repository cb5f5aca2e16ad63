"""The paper's protocol as one resumable command.

    python scripts/reproduce.py plan --budget mini --datasets smnist_mini
    python scripts/reproduce.py run --budget paper --datasets smnist,luma --launcher slurm
    python scripts/reproduce.py status
    python scripts/reproduce.py tables

Per data set, fusion and strategy: a random search, the best trial and epoch by fused validation
metric, one test evaluation; then the winner over seeds, and the paper's ablations on MILES. `run`
may be stopped and started again at any time, and started twice. Hydra overrides after the options
(epochs=5 tracker=none) go to every run. Exit status of `run`: 0 all done, 1 something is missing
(listed), 2 a mistake in the request.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any numerical library starts its threads
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation

from miles_repro.errors import UserError
from miles_repro.machine import lead, stop_on_signals

if TYPE_CHECKING:
    from miles_repro.protocol.plan import Plan
    from miles_repro.protocol.stages import Job, Protocol

RUNS = Path("results/runs")
LAUNCHERS = ("local", "basic", "slurm", "ray")


def main() -> int:
    args = parser().parse_args()
    stop_on_signals()
    lead()
    try:
        return COMMANDS[args.command](args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command continues where this stopped", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(dest="command", required=True)
    runs = argparse.ArgumentParser(add_help=False)
    runs.add_argument("--runs-dir", type=Path, default=RUNS, help="run records")
    request = argparse.ArgumentParser(add_help=False, parents=[runs])
    request.add_argument("--budget", default="mini", help="smoke, mini (default) or paper")
    request.add_argument("--datasets", default="smnist_mini", help="comma-separated")
    request.add_argument("--fusions", default="concat,sum", help="comma-separated")
    request.add_argument("--strategies", help="comma-separated; default: the paper's and controls")
    request.add_argument(
        "--ablations", action=argparse.BooleanOptionalAction, default=True, help="Tables IV to VI"
    )
    request.add_argument("--launcher", choices=LAUNCHERS, default="local", help="docs/clusters.md")
    request.add_argument("--workers", type=at_least_one, help="for the estimate; default: all here")
    request.add_argument("--price", type=price, help="of an hour on one worker, for the estimate")
    request.add_argument("--data-dir", type=Path, help="prepared data (default: $MILES_DATA, data)")
    request.add_argument("overrides", nargs="*", help="Hydra overrides for every run")
    commands.add_parser("plan", parents=[request], help="what is missing, and what it will take")
    run = commands.add_parser("run", parents=[request], help="start what is missing")
    run.add_argument("--no-estimate", action="store_true", help="do not measure time first")
    run.add_argument("--results", type=Path, default=Path("results"), help="tables go here")
    status = commands.add_parser("status", parents=[runs], help="done, running, failed")
    status.add_argument("--budget", help="only this one")
    tables = commands.add_parser("tables", parents=[runs], help="tables, figures, report")
    tables.add_argument("--results", type=Path, default=Path("results"), help="they go here")
    tables.add_argument(
        "--tables-only", action="store_true", help="no figures, no report.html: a third of the time"
    )
    tables.add_argument("--from-wandb", metavar="[ENTITY/]PROJECT", help="records from W&B instead")
    tables.add_argument("--to-wandb", metavar="[ENTITY/]PROJECT", help="log tables and figures")
    return top


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1")
    return int(text)


def price(text: str) -> float:
    if not 0 <= float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 0")
    return float(text)


def plan(args: argparse.Namespace) -> int:
    protocol, ready = protocol_for(args)
    make_and_show(args, protocol, ready, measure=True)
    return 0


def protocol_for(args: argparse.Namespace) -> tuple[Protocol, list[str]]:
    """The request's protocol, and its prepared data sets."""
    from miles_repro.protocol.stages import Protocol, Request, check_request

    overrides = list(args.overrides)
    if args.runs_dir != RUNS:
        overrides.append(f"runtime.runs_dir={args.runs_dir}")
    if args.data_dir:
        overrides.append(f"runtime.data_dir={args.data_dir}")
    names = {"strategies": args.strategies} if args.strategies else {}
    names |= {"datasets": args.datasets, "fusions": args.fusions}
    lists = {key: tuple(dict.fromkeys(text.split(","))) for key, text in names.items()}
    request = Request(
        budget=args.budget, ablations=args.ablations, overrides=tuple(overrides), **lists
    )
    check_request(request)
    protocol = Protocol(request)
    ready = [name for name in request.datasets if name not in protocol.not_prepared()]
    if not ready:
        todo = "; ".join(protocol.not_prepared().values())
        raise UserError(f"no data set of {args.datasets} is prepared: {todo} (docs/data.md)")
    return protocol, ready


def make_and_show(
    args: argparse.Namespace, protocol: Protocol, ready: list[str], *, measure: bool
) -> Plan:
    from miles_repro.machine import cores
    from miles_repro.protocol.plan import make_plan, show

    made = make_plan(protocol, ready, measure=measure)
    workers = max(1, cores() // made.threads) if args.launcher == "local" else 1
    show(made, protocol.not_prepared(), args.workers or workers, args.price)
    return made


def run(args: argparse.Namespace) -> int:
    from miles_repro.protocol.launch import Rounds, start_with
    from miles_repro.records import require_writable

    protocol, ready = protocol_for(args)
    require_writable(args.runs_dir)
    made = make_and_show(args, protocol, ready, measure=not args.no_estimate)
    failed: dict[Job, str] = {}
    for name in ready:
        for whole in protocol.stages(name):
            protocol.forget()
            stage = made.keep(whole)
            missing = protocol.missing(stage.jobs)
            if missing:
                print(f"\n{name}, {stage.name}: {len(missing)} runs to do", flush=True)
                failed |= Rounds(protocol, stage, start_with(args.launcher)).finish()
    unread = write_results(args)
    for job, why in failed.items():
        print(f"failed: {job}: {why}", file=sys.stderr)
    for name, command in protocol.not_prepared().items():
        print(f"not prepared: {name}: {command}", file=sys.stderr)
    return 1 if failed or protocol.not_prepared() else unread


def status(args: argparse.Namespace) -> int:
    from miles_repro.protocol.overview import look, show
    from miles_repro.records import tell

    if not args.runs_dir.is_dir():
        raise UserError(f"no folder {args.runs_dir}: nothing has run, or set --runs-dir")
    found = look(args.runs_dir, args.budget)
    show(found)
    return tell(found.ignored)


def tables(args: argparse.Namespace) -> int:
    return write_results(args, args.from_wandb, args.to_wandb, figures=not args.tables_only)


def command_line() -> str:
    return shlex.join(["python", "scripts/reproduce.py", *sys.argv[1:]])


def write_results(
    args: argparse.Namespace,
    from_wandb: str | None = None,
    to_wandb: str | None = None,
    *,
    figures: bool = True,
) -> int:
    """Tables, figures and the report, and the comparison in the terminal.

    Returns the exit status: 1 where a record had to be left out.
    """
    from miles_repro.cost import commit
    from miles_repro.records import Ignored, disk_errors, load_rows, load_summaries, tell
    from miles_repro.report import dynamics_runs, print_comparison, write_all, write_tables

    ignored: list[Ignored] = []
    if from_wandb:
        from miles_repro.tracking.exchange import records_from_wandb

        records = records_from_wandb(from_wandb, ignored)
    else:
        records = load_summaries(args.runs_dir, ignored)
    unread = tell(ignored)
    if not records:
        raise UserError(f"no finished run in {args.runs_dir}: run some first, or set --runs-dir")
    name, dirty = commit()
    version = f"{name or 'unknown'}{' (modified)' if dirty else ''}"
    command = command_line()
    print_comparison(records, command=command, commit=version)
    with disk_errors(args.results):
        if figures:
            rows = {}
            for record in dynamics_runs(records):
                names = [str(record[key]) for key in ("dataset", "fusion", "strategy", "run_id")]
                folder = args.runs_dir.joinpath(*names)
                if (folder / "metrics.jsonl").is_file():  # records from W&B have no epochs here
                    rows[names[-1]] = load_rows(folder)
            paths = write_all(records, args.results, command=command, commit=version, dynamics=rows)
        else:
            paths = write_tables(records, args.results, command=command, commit=version)
    print(f"{len(records)} runs -> {len(paths)} files in {args.results}: see {paths[-1]}")
    if to_wandb:
        send(records, paths, to_wandb)
    return unread


def send(records: Sequence[Mapping[str, Any]], paths: list[Path], to_wandb: str) -> None:
    from miles_repro.report import comparison_table
    from miles_repro.tracking.exchange import log_tables

    pairs = sorted({(record["dataset"], record["budget"]) for record in records})
    frames = {f"{d}_{b}": comparison_table(records, d, b) for d, b in pairs}
    shown = [path for path in paths if path.parent.name != "tables"]
    entity, _, project = to_wandb.rpartition("/")
    print(f"W&B: {log_tables(frames, shown, project, entity or None)}")


COMMANDS = {"plan": plan, "run": run, "status": status, "tables": tables}

if __name__ == "__main__":
    sys.exit(main())
