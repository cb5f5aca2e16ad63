"""What a section found, kept as JSON, and the report made of all sections."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miles_repro import cost
from miles_repro.errors import UserError
from miles_repro.machine import cores

ELSEWHERE = """\
## Published code

Measured by hand with code that is not part of this repository, so no command here repeats it: the
same arrays, encoders and initial weights in every loop, one thread, on a CPU, with this suite's
encoders as they were before their present form. BalanceBenchmark, repaired by hand until it ran,
took 1.36 to 1.63 times this suite's time for an epoch and 1.66 times for a whole run, with its own
loader 9.8 times; the official OGM-GE code took 1.18 times. The *usual recipe* above is neither: it
is a loop of this suite's own, at torch's default threads.
"""


@dataclass
class Table:
    """Columns and rows of text."""

    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    title: str = ""

    def add(self, *cells: object) -> None:
        self.rows.append([str(c) for c in cells])


@dataclass
class Goal:
    """A limit set beforehand, and what was measured. ``note``: the reason where it is missed."""

    what: str
    value: float
    limit: float
    at_least: bool = False
    note: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Section:
    """One section of the report. ``raw``: every single measurement, for the JSON file."""

    key: str
    title: str
    text: str
    tables: list[Table]
    goals: list[Goal] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)


def origin() -> dict[str, Any]:
    """Where and when a section was measured, and with which code."""
    commit, dirty = cost.commit()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", *sys.argv]),
        "commit": f"{commit or 'unknown'}{' with local changes' if dirty else ''}",
        "processor": _processor(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": _torch_version(),
        "load_before": round(os.getloadavg()[0], 1),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "?")


def _torch_version() -> str:
    from importlib.metadata import version

    return version("torch")


def as_json(section: Section, where: dict[str, Any], seconds: float) -> dict[str, Any]:
    return {**asdict(section), "origin": where, "seconds": round(seconds)}


def read(path: Path) -> dict[str, Any]:
    """The sections of an earlier ``results.json``, by key; none where there is no file.

    Raises:
        UserError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        render(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is damaged: move it away to measure afresh") from None
    return found


def render(sections: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = ["# Speed", "", *_origins(sections), ""]
    goals = [(s["title"], Goal(**g)) for s in sections.values() for g in s["goals"]]
    if goals:
        summary = Table(["section", "goal", "limit", "measured", "met"])
        for title, g in goals:
            limit = f"{'>=' if g.at_least else '<='} {g.limit:g}"
            met = "yes" if g.met else f"**no**{': ' + g.note if g.note else ''}"
            summary.add(title, g.what, limit, f"{g.value:.3g}", met)
        lines += ["## Goals", "", *_markdown(summary), ""]
    for s in sections.values():
        lines += section_lines(s)
    return "\n".join([*lines, ELSEWHERE.rstrip()])


def section_lines(section: dict[str, Any]) -> list[str]:
    """One section in Markdown, with where it is from."""
    lines = [f"## {section['title']}", "", section["text"].strip(), ""]
    for table in section["tables"]:
        t = Table(**table)
        lines += [*([f"**{t.title}**", ""] if t.title else []), *_markdown(t), ""]
    o = section["origin"]
    return [
        *lines,
        f"*{o['date']}, commit {o['commit']}, load average before it {o['load_before']}, "
        f"{section['seconds']} s: `{o['command']}`*",
        "",
    ]


def machine(o: dict[str, Any]) -> str:
    """The machine of an :func:`origin`, and what ran on it."""
    return (
        f"{o['processor']}, {o['cores']} cores, {o['memory_gb']} GB; {o['platform']}; "
        f"Python {o['python']}, torch {o['torch']}"
    )


def _origins(sections: dict[str, Any]) -> list[str]:
    machines = list(dict.fromkeys(machine(s["origin"]) for s in sections.values()))
    return [
        "`make bench` measures this. Ratios come from alternating repetitions side by side: the "
        "median of the repetitions' ratios, with the smallest and the largest in parentheses. "
        "*CPU* counts the processor time of the processes concerned, *wall* the time on the clock, "
        "which other work on the machine disturbs.",
        "",
        *(f"Machine: {m}." for m in machines),
    ]


def _markdown(table: Table) -> list[str]:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return ["| " + " | ".join(row) + " |" for row in rows]
