"""4. From nothing to a verdict: miles against vanilla_aux."""

from __future__ import annotations

import sys

from bench.report import Section, Table
from bench.timing import command
from bench.work import REPO, Work
from miles_repro.cli.reproduce import parser
from miles_repro.protocol.asked import protocol_for, rule_for
from miles_repro.protocol.decide import PRIMARY, UntilDecided
from miles_repro.records import load_summaries

DATASETS = ("mfeat", "smnist_mini")
EPS = 1
TEXT = f"""\
The command that decides whether MILES beats the auxiliary losses alone (fused metric, {EPS} point
counts as equal, concatenation), without any record before it: `reproduce.py run --until-decided
--eps {EPS} --max-seeds 30 --strategies miles,vanilla_aux --fusions concat --no-ablations`, at
budget mini and with this machine's workers, once. It includes the estimate, the search of both
strategies, the seeds until the verdict, tables, figures and page; *of it the runs* is the
CPU time that their records add up to. How many seeds a verdict takes depends on the scores, so this
time follows from the data as much as from the code.
"""


def measure(work: Work) -> Section:
    table = Table(
        [
            *("data set", "verdict", "difference", "seeds", "runs"),
            *("wall, s", "CPU, s", "of it the runs, s"),
        ]
    )
    raw = {}
    for dataset in DATASETS:
        folder = work.folder()
        words = arguments(work, dataset, folder)
        span = command([sys.executable, REPO / "scripts" / "reproduce.py", *words])
        args = parser().parse_args(words)
        protocol = protocol_for(args)
        rule = rule_for(args, protocol)
        assert rule is not None
        decision = UntilDecided(protocol, dataset, rule, print)
        verdict = decision.standings()["concat"].verdicts[PRIMARY]
        runs = [summary["cost"]["cpu_s"] or 0.0 for summary in load_summaries(folder)]
        table.add(
            *(dataset, verdict.word, f"{verdict.mean:+.2f}", verdict.n, len(runs)),
            *(f"{span.wall:.0f}", f"{span.cpu:.0f}", f"{sum(runs):.0f}"),
        )
        raw[dataset] = {
            "wall": span.wall,
            "cpu": span.cpu,
            "runs": runs,
            "verdict": [verdict.word, verdict.mean, verdict.low, verdict.high, verdict.n],
        }
    return Section("decision", "From nothing to a verdict", TEXT, [table], raw=raw)


def arguments(work: Work, dataset: str, folder: object) -> list[str]:
    """Of `reproduce.py run`."""
    budget, most = work.size.decision
    return [
        *("run", "--datasets", dataset, "--budget", budget, "--strategies", "miles,vanilla_aux"),
        *("--fusions", "concat", "--no-ablations", "--until-decided", "--eps", str(EPS)),
        *("--max-seeds", str(most), "--runs-dir", str(folder), "--results", str(work.folder())),
        *("--data-dir", str(work.data_dir), "tracker=none", f"runtime.device={work.device}"),
    ]
