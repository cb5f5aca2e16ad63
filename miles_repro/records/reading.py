"""Reading the tree of records, whatever lies in it.

It may be damaged or foreign. Nothing read is ever executed, and what cannot be used is named
(:class:`Ignored`) and left out: one bad file never hides the good ones.
"""

from __future__ import annotations

import marshal
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from miles_repro.errors import UserError
from miles_repro.records.disk import exclusive, read_regular
from miles_repro.records.summary import (
    NAME_RULE,
    NotASummary,
    Row,
    Summary,
    check_summary,
    parse_row,
    parse_summary,
    printable,
)
from miles_repro.records.writing import CONFIG, ERROR, LOCK, ROWS, SUMMARY

PLACE = ("dataset", "fusion", "strategy", "run_id")
"""The names that lead from the runs' folder to a record."""


class Ignored(NamedTuple):
    """Something below a runs folder that is left out. ``harmless``: no result is missed by it."""

    path: Path
    why: str
    harmless: bool = False


def tell(ignored: list[Ignored]) -> int:
    """Name what was left out, in two lines at most. Returns the exit status: 1 if it matters."""
    bad = [i for i in ignored if not i.harmless]
    rest = [i for i in ignored if i.harmless]
    for group, most in ((bad, 1 if rest else 2), (rest, 1)):
        for i in group[:most]:
            more = len(group) - most if i is group[:most][-1] else 0
            also = f" (and {more} more like this)" if more > 0 else ""
            print(f"left out: {printable(i.path)} {i.why}{also}", file=sys.stderr)
    return 1 if bad else 0


@cache
def _tell_once(item: Ignored) -> None:
    tell([item])


def _note(ignored: list[Ignored] | None, item: Ignored) -> None:
    if ignored is not None:
        ignored.append(item)
    else:
        _tell_once(item)


def read_summary(
    folder: Path,
    ignored: list[Ignored] | None = None,
    parse: Callable[[bytes], Summary] = parse_summary,
) -> Summary | None:
    """The summary of a finished run, None where there is none that can be used.

    ``ignored``: gets what is wrong with it; without one it is told on stderr. ``parse``: or
    `check_summary`, where the order of keys is no matter.
    """
    path = f"{folder}/{SUMMARY}"
    try:
        summary = parse(read_regular(path))
        place = tuple(str(summary[name]) for name in PLACE)  # type: ignore[literal-required]
        if place != folder.parts[-len(PLACE) :]:
            raise NotASummary(f"is the record of {'/'.join(place)}: it lies in the wrong folder")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as e:
        _note(ignored, Ignored(Path(path), f"cannot be read: {e.strerror}"))
    except NotASummary as e:
        _note(ignored, Ignored(Path(path), str(e), harmless=e.older))
    else:
        return summary
    return None


def run_folders(
    runs_dir: Path, ignored: list[Ignored] | None = None, *, depth: int = len(PLACE)
) -> Iterator[Path]:
    """Every run folder below ``runs_dir``, in a fixed order.

    ``depth``: how many levels below it they lie; 1 below the folder of one cell.
    """
    try:
        entries = sorted(os.scandir(runs_dir), key=lambda e: e.name)
    except FileNotFoundError:
        return
    except OSError as e:
        _note(ignored, Ignored(runs_dir, f"cannot be read: {e.strerror}"))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        try:
            is_folder = entry.is_dir()
            link = entry.is_symlink()
        except OSError:
            is_folder, link = False, True
        if not is_folder:
            what = "is a link that leads nowhere" if link else "is no folder of runs"
            _note(ignored, Ignored(path, what, harmless=not link))
        elif not re.match(NAME_RULE, entry.name):
            _note(ignored, Ignored(path, "has a name that no folder of runs has"))
        elif depth > 1:
            yield from run_folders(path, ignored, depth=depth - 1)
        elif _holds_a_run(path, ignored):
            yield path


def _holds_a_run(folder: Path, ignored: list[Ignored] | None) -> bool:
    if os.path.lexists(f"{folder}/{SUMMARY}"):
        return True
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as e:
        _note(ignored, Ignored(folder, f"cannot be read: {e.strerror}"))
        return False
    return not {SUMMARY, CONFIG, ROWS, ERROR}.isdisjoint(names)


def load_summaries(
    runs_dir: Path, ignored: list[Ignored] | None = None, *, depth: int = len(PLACE)
) -> list[Summary]:
    """The summaries of all finished runs below ``runs_dir``; see `run_folders`. What they have in
    common (code, most of a configuration) is in memory once."""
    parts: dict[bytes, Any] = {}
    found = []
    for folder in run_folders(runs_dir, ignored, depth=depth):
        if (summary := read_summary(folder, ignored)) is not None:
            record: dict[str, Any] = summary  # type: ignore[assignment]
            config = record["config"]
            for whole, key in [(config, key) for key in config] + [(record, "code")]:
                # marshal tells 1, 1.0 and True apart, and another order
                whole[key] = parts.setdefault(marshal.dumps(whole[key], 2), whole[key])
            found.append(summary)
    return found


def load_rows(folder: Path) -> list[Row]:
    """The epoch rows of one run, up to one that a kill cut short; none where none can be read."""
    rows: list[Row] = []
    try:
        lines = read_regular(folder / ROWS).splitlines()
    except OSError:
        return rows
    for line in lines:
        row = parse_row(line)
        if row is None:
            break
        rows.append(row)
    return rows


class Epochs(Mapping[str, list[Row]]):
    """Run id -> its epoch rows, read when asked for: a large study's do not all fit in memory."""

    def __init__(self, runs_dir: Path, records: Iterable[Mapping[str, Any]]) -> None:
        self._folders = {
            r["run_id"]: runs_dir.joinpath(*(str(r[name]) for name in PLACE)) for r in records
        }

    def __getitem__(self, run_id: str) -> list[Row]:
        return load_rows(self._folders[run_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


def last_error(folder: Path) -> str:
    """The last line of a failed run's log."""
    try:
        lines = read_regular(folder / ERROR).decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    return printable(lines[-1])[:500] if lines else "no message"


def in_training(folder: Path) -> bool:
    """Whether a process has the run; a finished one may be repeated just now.

    Raises:
        OSError, UserError: nobody can tell.
    """
    if not (folder / LOCK).exists():
        return False
    with exclusive(folder / LOCK, shared=True) as free:
        return not free


def status_of(folder: Path) -> str:
    """``done``, ``running``, ``failed`` or ``unfinished``; what cannot be read is unfinished."""
    if read_summary(folder, [], check_summary) is not None:
        return "done"
    try:
        if in_training(folder):
            return "running"
        return "failed" if (folder / ERROR).exists() else "unfinished"
    except (OSError, UserError):  # another user's folder, or no locks: nobody can tell
        return "unfinished"
