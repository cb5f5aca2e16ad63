"""Where numbers come from: runs, seeds, commits, cost; the notes under every table."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from miles_repro.cost import commit
from miles_repro.machine import duration
from miles_repro.paper import DATASETS
from miles_repro.provenance import today
from miles_repro.selection import Cell, Record, Study, setting

INTERVAL_NOTE = (
    "Percent on the test set: mean ± 95 % confidence interval of the mean (Student t, uncorrected) "
    "over n decision seeds; no CI: fewer than three, or no spread. {covers}"
)
RETRAINING = "One fixed split, so intervals speak of retraining only."
RESPLITTING = "Each seed has its own split, so intervals cover retraining and re-splitting."

SEED = re.compile(r"(?<= )seed=(\d+)(?= |$)")
SINGLE = re.compile(r"\b(?:train\.py|miles-train) (?!-m)")


@dataclass(frozen=True)
class Origin:
    """What made this report, and which data sets only bear a paper data set's name.

    stand_ins: data set names whose records come from stand-in data: no paper columns for them.
    """

    command: str
    commit: str
    stand_ins: frozenset[str] = frozenset()

    def in_paper(self, dataset: str) -> bool:
        return dataset in DATASETS and dataset not in self.stand_ins

    def note(self) -> str:
        return f"Made by `{self.command}` at commit {self.commit}."


def runs_note(runs: Sequence[Record]) -> str:
    """`78 runs, seeds 0, 1, 2; code at commit abc1234; cost 0.2 h wall, 0.2 h CPU.`"""
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs})))
    return f"{plural(len(runs))}, seeds {seeds}; code at {commits(runs)}; cost {cost_text(runs)}."


def version() -> str:
    """The commit of the code that runs, ``(modified)`` where files differ from it."""
    name, dirty = commit()
    return f"{name or 'unknown'}{' (modified)' if dirty else ''}"


def commits(runs: Iterable[Record]) -> str:
    counts = Counter(
        str(run["environment"].get("commit") or "unknown")
        + " (modified)" * bool(run["environment"].get("dirty"))
        for run in runs
    )
    names = [name for name, _ in counts.most_common()]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"commit{'s' if len(names) > 1 else ''} {shown}"


def total(runs: Iterable[Record], name: str) -> float | None:
    """Sum of one cost over the runs that measured it, None where none did."""
    found = [run["cost"][name] for run in runs if run["cost"].get(name) is not None]
    return sum(found) if found else None


def cost_text(runs: Sequence[Record]) -> str:
    parts = []
    for name, label in (("wall_s", "wall"), ("cpu_s", "CPU")):
        seconds = total(runs, name)
        if seconds is not None:
            measured = sum(run["cost"].get(name) is not None for run in runs)
            of = f" (of {plural(measured)})" if measured < len(runs) else ""
            parts.append(f"{duration(seconds)} {label}{of}")
    energy = total(runs, "energy_j")
    if energy is not None:
        parts.append(f"{energy / 3.6e6:.3g} kWh")
    return ", ".join(parts) or "not recorded"


def interval_note(runs: Iterable[Record]) -> str:
    """What intervals are, and which sources of variance they cover."""
    rotated = any(setting(run, "dataset", "scheme") == "rotate" for run in runs)
    return INTERVAL_NOTE.format(covers=RESPLITTING if rotated else RETRAINING)


def study_notes(study: Study) -> list[str]:
    """What a reader must know of a study's runs: those left out, mixed machines, diverged runs."""
    reasons = Counter(study.left_out.values())
    notes = [f"Left out: {plural(count)} ({reason})." for reason, count in sorted(reasons.items())]
    machines = Counter(_machine(run) for run in study.records)
    if len(machines) > 1:
        shown = ", ".join(f"{plural(count)} on {name}" for name, count in machines.most_common())
        notes.append(f"Mixed machines: {shown}; the same seed gives slightly other numbers there.")
    notes += code_note(study.records)
    diverged = [run["run_id"] for run in study.records if run["status"] == "diverged"]
    if diverged:
        shown = ", ".join(diverged[:4]) + ", ..." * (len(diverged) > 4)
        notes.append(f"Diverged, counted with the rest: {plural(len(diverged))} ({shown}).")
    return notes


def code_note(runs: Sequence[Record]) -> list[str]:
    """Names the runs whose code is neither today's nor, where today has none, that of most."""
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
    codes = {id(run["code"]): run["code"] for run in runs}  # records share theirs
    for code, count in Counter(id(run["code"]) for run in runs).items():
        for module, digest in codes[code].items():
            seen[module][digest] += count
    expected = {m: today(m) or digests.most_common(1)[0][0] for m, digests in seen.items()}
    odd = {
        code: {m for m, digest in found.items() if digest != expected[m]}
        for code, found in codes.items()
    }
    ids = [run["run_id"] for run in runs if odd[id(run["code"])]]
    if not ids:
        return []
    modules = sorted(set().union(*odd.values()))
    shown, where = (", ".join(x[:3]) + ", .." * (len(x) > 3) for x in (ids, modules))
    return [
        f"Made by other code than today's: {plural(len(ids))} ({shown}; {where}); "
        "rerun=true repeats them."
    ]


def _machine(run: Record) -> str:
    """Device and thread count change the order of sums, so the last digits of a run."""
    environment = run["environment"]
    threads = environment.get("threads")
    return f"{environment.get('device')}" + (f" with {threads} threads" if threads else "")


def study_tags(dataset: str, study: Study | None) -> dict[str, str]:
    """Leading columns of every CSV file."""
    return {
        "dataset": dataset,
        "budget": study.budget if study else "",
        "metric": study.metric if study else "",
    }


def plural(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def diverged(cell: Cell) -> int:
    return sum(run["status"] == "diverged" for run in cell.runs)


def _command(runs: Sequence[Record]) -> str:
    """What made the runs; commands that differ in the seed alone are one sweep."""
    seeds: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for run in runs:
        found = SEED.search(run["command"])
        seeds[SEED.sub("seed=\0", run["command"], count=1)][found[1] if found else ""] = None
    return " && ".join(
        (SINGLE.sub(r"\g<0>-m ", text, count=1) if len(values) > 1 else text).replace(
            "\0", ",".join(values)
        )
        for text, values in seeds.items()
    )


def cell_data(cell: Cell | None) -> dict[str, Any]:
    """The CSV columns that trace a cell back to its runs."""
    if cell is None:
        return {"n_seeds": 0, "n_trials": 0}
    return {
        "n_seeds": len(cell.runs),
        "n_diverged": diverged(cell),
        "n_trials": cell.trials,
        "trial": cell.trial,
        "run_ids": " ".join(run["run_id"] for run in cell.runs),
        "wall_s": total(cell.runs, "wall_s"),
        "cpu_s": total(cell.runs, "cpu_s"),
        "energy_j": total(cell.runs, "energy_j"),
        "search_wall_s": total(cell.searched, "wall_s"),
        "commit": commits(cell.runs).partition(" ")[2],
        "command": _command(cell.runs),
    }
