"""6. Status and tables of many records: time and memory."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from bench.report import Goal, Section, Table
from bench.timing import WATCHED, command
from bench.work import FULL, RATES, REPO, Work, cheap, compose
from miles_repro.run import run

COMMANDS = {
    "status": ["status"],
    "again": ["status"],
    "tables": ["tables", "--tables-only"],
    "page": ["tables"],
}
LIMITS = ({"status": 1.0, "page": 8.0}, {"status": 5.0, "tables": 60.0, "memory": 2000.0})
"""CPU seconds, and MB, for the first and the second number of records."""
STRATEGIES = (
    *("vanilla", "vanilla_aux", "mslr_k", "mslr_s", "mslr_d", "ogm", "ogm_ge", "mses"),
    *("gblend", "miles"),
)
FUSIONS = ("concat", "sum")
SEEDS = 5
TEXT = """\
The commands that read all records, one after the other in the order of the table, from the command
line to its end: `reproduce.py status`, the same again (it remembers its last look), `tables
--tables-only`, and `tables` with its figures and page. *Peak memory* is that of the largest
process. The records are copies of a real run of one epoch under other names and with shifted
numbers: 10 strategies x 2 fusions, trials of 5 seeds each. All files are in the page cache.
"""


def measure(work: Work) -> Section:
    table = Table(["records", "command", "wall, s", "CPU, s", "peak memory, MB"])
    goals: list[Goal] = []
    raw: dict[str, Any] = {}
    folder = work.folder()
    run(compose(*cheap(work, folder, 0)), "bench")
    model = next(folder.rglob("summary.json")).parent
    for count, limits in zip(work.size.records, LIMITS, strict=True):
        records = many_records(work, model, count)
        for name, words in COMMANDS.items():
            args: list[str | Path] = [sys.executable, REPO / "scripts" / "reproduce.py", *words]
            args += ["--runs-dir", records]
            if words != ["status"]:
                args += ["--results", work.folder()]
            peak = work.folder() / "peak"
            span = command([*WATCHED, peak, *args])
            memory = float(peak.read_text())
            command_line = f"`{' '.join(words)}`"
            figures = f"{span.wall:.2f}", f"{span.cpu:.2f}", f"{memory:,.0f}"
            table.add(f"{count:,}", command_line, *figures)
            raw[f"{count}/{name}"] = [span.wall, span.cpu, memory]
            full = count in FULL.records
            if full and name in limits:
                what = f"seconds for {command_line} of {count:,} records (CPU)"
                goals.append(Goal(what, span.cpu, limits[name]))
            if full and name == "page" and "memory" in limits:
                what = f"MB for {command_line} of {count:,} records"
                goals.append(Goal(what, memory, limits["memory"]))
    return Section("records", "Many records", TEXT, [table], goals, raw)


def many_records(work: Work, model: Path, count: int) -> Path:
    """Records like that of ``model``: strategies x fusions x trials x seeds."""
    root = work.folder()
    summary = json.loads((model / "summary.json").read_text())
    rows = (model / "metrics.jsonl").read_text()
    draw = random.Random(0)
    for cell, (fusion, strategy) in enumerate(itertools.product(FUSIONS, STRATEGIES)):
        needs = (RATES,) if strategy.startswith("mslr") else ()
        overrides = (f"fusion={fusion}", f"strategy={strategy}", *needs)
        identity = work.config("mlp", *overrides).identity()
        named = {"strategy": strategy, "label": strategy, "fusion": fusion}
        folder = root / summary["dataset"] / fusion / strategy
        for n in range(count // (len(FUSIONS) * len(STRATEGIES))):
            trial, seed = divmod(n, SEEDS)
            own = {"trial": trial, "seed": seed}
            one = summary | named | own
            one |= {"run_id": f"{cell:06x}{n:06x}", "config": identity | own}
            one |= {part: shifted(summary[part], draw) for part in ("val", "test")}
            place = folder / one["run_id"]
            place.mkdir(parents=True)
            (place / "summary.json").write_text(json.dumps(one))
            (place / "config.json").write_text(json.dumps(one["config"]))
            (place / "metrics.jsonl").write_text(rows)
    os.sync()  # the writing is not what is measured
    return root


def shifted(scores: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    factor = {head: draw.uniform(0.9, 1.0) for head in scores}
    return {head: s | {"metric": s["metric"] * factor[head]} for head, s in scores.items()}
