"""The paper's protocol as one resumable command.

    python scripts/reproduce.py plan --budget mini --datasets smnist_mini
    python scripts/reproduce.py run --until-decided --hours 8 --strategies paper,vanilla_aux
    python scripts/reproduce.py run --paper-size --datasets smnist,luma --launcher slurm
    python scripts/reproduce.py status --trials
    python scripts/reproduce.py tables

Per data set, fusion and strategy: a random search with seed 0, the best trial and epoch by fused
validation metric, one test evaluation; then the winner over other seeds, and the paper's ablations
on MILES. `--until-decided` goes on with more seeds for the reference and every strategy that is not
yet better, worse or equal. `run` may be stopped and started again at any time, and started
twice. Hydra overrides after the options (epochs=5 tracker=none) go to every run. Exit status of
`run`: 0 all done, 1 something is missing (listed), 2 a mistake in the request.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miles_repro import places
from miles_repro.cli.options import OneLine, at_least_one, new_file, positive, price, seeds
from miles_repro.errors import UserError, ended
from miles_repro.machine import lead, stop_on_signals
from miles_repro.verdicts import EPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from miles_repro.protocol.decide import Rule
    from miles_repro.protocol.jobs import Job
    from miles_repro.protocol.plan import Plan
    from miles_repro.protocol.stages import Protocol
    from miles_repro.records import Row

RUNS, RESULTS = Path("results/runs"), Path("results/local")
LAUNCHERS = ("local", "in_process", "slurm", "ray")


def main() -> int:
    args = parser().parse_args()
    stop_on_signals()
    lead()
    return ended(
        partial(COMMANDS[args.command], args),
        "interrupted: the same command continues where this stopped",
    )


def parser() -> argparse.ArgumentParser:
    top = OneLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    runs = OneLine(add_help=False)
    runs.add_argument("--runs-dir", type=Path, default=RUNS, help="run records")
    equal = OneLine(add_help=False)
    for name, key in (("--eps", "fused"), ("--eps-heads", "heads")):
        text = f"points of {key.replace('heads', 'probes and gaps')} that count as equal"
        equal.add_argument(name, type=positive, default=EPS[key], help=f"{text} ({EPS[key]:g})")
    request = OneLine(add_help=False, parents=[runs, equal])
    request.add_argument("--budget", default="mini", help="smoke, mini (default) or paper")
    request.add_argument("--datasets", default="smnist_mini", help="comma-separated")
    request.add_argument("--fusions", default="concat,sum", help="comma-separated")
    request.add_argument(
        "--strategies",
        default="core",
        help="comma-separated names and groups: all, paper, core (default: the paper's rows, "
        "unimodal models, vanilla_aux, ume, controls), or a family such as gradients",
    )
    request.add_argument(
        "--ablations", action=argparse.BooleanOptionalAction, default=True, help="Tables IV to VI"
    )
    request.add_argument(
        "--paper-size",
        action="store_true",
        help="as large as the paper and no larger: its rows, budget=paper, one seed a winner, "
        "ablations on LUMA",
    )
    until = request.add_argument_group("seeds until decided")
    until.add_argument("--until-decided", action="store_true", help="then more, round by round")
    until.add_argument("--max-seeds", type=seeds, default=40, help="for every strategy (40)")
    until.add_argument("--hours", type=positive, help="start no round of seeds after so long")
    until.add_argument("--reference", default="vanilla_aux", help="strategy to compare with")
    cost = request.add_argument_group("estimate")
    cost.add_argument("--workers", type=at_least_one, help="default: this machine's")
    cost.add_argument("--price", type=price, help="of an hour on one worker")
    cost.add_argument("--tflops", type=positive, default=19.5, help="a GPU's peak (A100: 19.5)")
    cost.add_argument("--use", type=positive, default=0.3, help="share of it in training (0.3)")
    request.add_argument("--launcher", choices=LAUNCHERS, default="local", help="docs/clusters.md")
    request.add_argument("--data-dir", type=Path, help="prepared data (default: $MILES_DATA, data)")
    request.add_argument("overrides", nargs="*", help="Hydra overrides for every run")
    commands.add_parser("plan", parents=[request], help="what is missing, and what it will take")
    run = commands.add_parser("run", parents=[request], help="start what is missing")
    run.add_argument("--no-estimate", action="store_true", help="do not measure time first")
    status = commands.add_parser("status", parents=[runs], help="done, running, failed")
    status.add_argument("--budget", help="only this one")
    status.add_argument("--trials", action="store_true", help="drawn values and scores")
    tables = commands.add_parser("tables", parents=[runs, equal], help="tables, figures, report")
    for command in (run, tables):
        command.add_argument(
            "--results", type=Path, default=RESULTS, help=f"tables go here (default: {RESULTS})"
        )
    tables.add_argument(
        "--tables-only", action="store_true", help="no figures, no report.html: a third of the time"
    )
    tables.add_argument(
        "--with", dest="beside", type=Path, action="append", default=[], metavar="FILE",
        help="records of others beside yours, as their submit packed them",
    )  # fmt: skip
    tables.add_argument(
        "--records", type=Path, action="append", default=[], metavar="FILE",
        help="packed records instead of the runs' folder",
    )  # fmt: skip
    tables.add_argument("--from-wandb", metavar="[ENTITY/]PROJECT", help="records from W&B instead")
    tables.add_argument("--to-wandb", metavar="[ENTITY/]PROJECT", help="log tables and figures")
    tables.add_argument("--first", type=at_least_one, metavar="N", help="only the first N seeds")
    own = {"tables_only": False, "from_wandb": None, "to_wandb": None, "first": None}
    run.set_defaults(beside=[], records=[], **own)
    submit = commands.add_parser("submit", parents=[runs], help="pack records to share")
    submit.add_argument("file", type=new_file, help="the JSON file to write (.json or .json.xz)")
    submit.add_argument(
        "--no-costs", action="store_true", help="leave out times: other work ran beside"
    )
    submit.add_argument("--by", default="", help="who made the runs")
    for axis in ("budget", "dataset", "fusion", "strategy"):
        submit.add_argument(f"--{axis}", help="only these, comma-separated")
    unpack = commands.add_parser("unpack", parents=[runs], help="go on from packed records")
    unpack.add_argument("files", type=Path, nargs="+", metavar="FILE", help="as submit wrote them")
    return top


def plan(args: argparse.Namespace) -> int:
    from miles_repro.protocol.asked import protocol_for, rule_for

    protocol = protocol_for(args)
    make_and_show(args, protocol, rule_for(args, protocol), measure=True)
    return 0


def make_and_show(
    args: argparse.Namespace, protocol: Protocol, rule: Rule | None, *, measure: bool
) -> Plan:
    from miles_repro.machine import cores
    from miles_repro.protocol.plan import Machine, make_plan, show

    made = make_plan(protocol, measure=measure, rule=rule)
    workers = max(1, cores() // made.threads) if args.launcher == "local" else 1
    machine = Machine(args.workers or workers, args.price, args.tflops, args.use)
    show(made, machine)
    return made


def run(args: argparse.Namespace) -> int:
    from miles_repro.protocol.asked import protocol_for, rule_for
    from miles_repro.protocol.decide import UntilDecided
    from miles_repro.protocol.launch import Rounds, start_with
    from miles_repro.records import require_writable

    protocol, began = protocol_for(args), time.monotonic()
    missing = protocol.not_prepared()
    ready = [name for name in protocol.request.datasets if name not in missing]
    if not ready:
        todo = "; ".join(missing.values())
        raise UserError(f"no data set of {args.datasets} is prepared: {todo} (docs/data.md)")
    rule = rule_for(args, protocol)
    require_writable(args.runs_dir)
    made = make_and_show(args, protocol, rule, measure=not args.no_estimate)
    start = start_with(args.launcher, protocol.request.common)
    failed: dict[Job, str] = {}
    for name in ready:
        for stage in protocol.stages(name):
            failed |= Rounds(protocol, made.keep(stage), start).finish()
        if rule:
            until = began + 3600 * args.hours if args.hours else float("inf")
            rounds = UntilDecided(protocol, name, rule, start, made.refused, until, dict(failed))
            failed |= rounds.finish()
    lacking = [f"failed: {job}: {why}" for job, why in failed.items()]
    lacking += [f"not prepared: {name}: {command}" for name, command in missing.items()]
    try:
        return 1 if tables(args) or lacking else 0
    finally:
        print(*lacking, sep="\n", end="\n" if lacking else "", file=sys.stderr)


def status(args: argparse.Namespace) -> int:
    from miles_repro.protocol.overview import look, show
    from miles_repro.records import tell

    if not args.runs_dir.is_dir():
        raise UserError(f"no folder {args.runs_dir}: nothing has run, or set --runs-dir")
    if args.trials:
        from miles_repro.protocol.searched import show_trials
        from miles_repro.records import Ignored, load_summaries

        ignored: list[Ignored] = []
        show_trials(load_summaries(args.runs_dir, ignored), args.budget)
        return tell(ignored)
    found = look(args.runs_dir, args.budget)
    show(found)
    return tell(found.ignored)


def tables(args: argparse.Namespace) -> int:
    """Tables, figures and the report, and the comparison in the terminal.

    Returns the exit status: 1 where a record had to be left out.
    """
    from miles_repro import submission
    from miles_repro.records import Epochs, Ignored, load_summaries, printable, tell
    from miles_repro.records.disk import disk_errors
    from miles_repro.report import dynamics_runs, print_comparison, write_all, write_tables
    from miles_repro.report.provenance import version
    from miles_repro.tracking.connection import project_url

    ignored: list[Ignored] = []
    command = printable(f"{places.command('reproduce')} {shlex.join(sys.argv[1:])}")
    commit = version()
    epochs: Mapping[str, Sequence[Row]] = {}
    if args.records:
        records, epochs, commit = submission.together(args.records)
        command = f"make tables RECORDS='{' '.join(map(str, args.records))}'{_options(args)}"
    elif args.from_wandb:
        from miles_repro.tracking.exchange import records_from_wandb

        records = records_from_wandb(args.from_wandb, ignored)
    else:
        records = load_summaries(args.runs_dir, ignored)
    unread = tell(ignored)
    if args.beside:
        records = submission.beside(records, args.beside)
    if args.first:
        records = [record for record in records if record["seed"] <= args.first]
    if not records:
        raise UserError(f"no finished run in {args.runs_dir}: run some first, or set --runs-dir")
    eps = {"fused": args.eps, "heads": args.eps_heads}
    how: Any = {"command": command, "commit": commit, "eps": eps}
    print_comparison(records, **how)
    with disk_errors(args.results):
        if args.tables_only:
            paths = write_tables(records, args.results, **how)
        else:
            # W&B's records may have none here
            rows = epochs or Epochs(args.runs_dir, dynamics_runs(records))
            url = project_url(args.from_wandb or args.to_wandb)
            paths = write_all(records, args.results, dynamics=rows, runs_url=url, **how)
    print(f"{len(records)} runs -> {len(paths)} files in {args.results}: see {paths[-1]}")
    if args.to_wandb:
        from miles_repro.tracking.exchange import log_results

        print(f"W&B: {log_results(paths, args.to_wandb)}")
    return unread


def _options(args: argparse.Namespace) -> str:
    """What `make tables` is given beside the records."""
    words = ["--first", args.first] if args.first else []
    words += [word for path in args.beside for word in ("--with", path)]
    for name, value, usual in (("", args.eps, "fused"), ("-heads", args.eps_heads, "heads")):
        words += [f"--eps{name}", f"{value:g}"] if value != EPS[usual] else []
    return f" ARGS='{' '.join(map(str, words))}'" if words else ""


def submit(args: argparse.Namespace) -> int:
    from miles_repro import submission
    from miles_repro.records import Epochs, load_summaries
    from miles_repro.report import dynamics_runs
    from miles_repro.report.provenance import version

    records = load_summaries(args.runs_dir)
    for axis in ("budget", "dataset", "fusion", "strategy"):
        if asked := getattr(args, axis):
            records = [record for record in records if record[axis] in asked.split(",")]
    if not records:
        raise UserError(f"no finished run in {args.runs_dir} is of these choices")
    epochs: Mapping[str, Sequence[Row]] = Epochs(args.runs_dir, dynamics_runs(records))
    if args.no_costs:
        records, epochs = submission.without_costs(records, epochs)
    submission.write(args.file, records, args.by, epochs, version())
    print(f"{len(records)} runs packed in {args.file}: others read it with tables --with")
    return 0


def unpack(args: argparse.Namespace) -> int:
    from miles_repro import submission

    new, busy = submission.unpack(args.files, args.runs_dir)
    left = f", {busy} left out that other processes are training" * bool(busy)
    print(f"{new} runs put into {args.runs_dir}{left}: run goes on from them")
    return 0


COMMANDS = {f.__name__: f for f in (plan, run, status, tables, submit, unpack)}
