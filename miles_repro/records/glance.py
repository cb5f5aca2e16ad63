"""What an overview says of finished runs, remembered from one look to the next.

Only a cache: an entry counts while its summary has the same size and time of change, anything else
is read and checked again. It says no more than a foreign record could say, and is checked like one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from miles_repro.errors import UserError
from miles_repro.records.disk import read_regular, write_atomic
from miles_repro.records.reading import Ignored, read_summary
from miles_repro.records.summary import Count, Name, check_summary
from miles_repro.records.writing import SUMMARY

CACHE = ".glance.json"


class Glance(NamedTuple):
    """size and changed (ns): of the summary's file."""

    size: int
    changed: int
    status: Literal["done", "diverged"]
    budget: Name
    trial: Count


_glances = TypeAdapter(dict[str, Glance])


class Glances:
    """Those of one folder of runs."""

    def __init__(self, runs_dir: Path) -> None:
        self.path = runs_dir / CACHE
        self._known: Mapping[str, Glance] = {}
        self._found: dict[str, Glance] = {}
        with suppress(OSError, ValidationError):
            self._known = _glances.validate_json(read_regular(self.path), strict=True)

    def at(self, folder: Path, ignored: list[Ignored]) -> Glance | None:
        """Of the finished run in a folder, None where there is none that can be used."""
        try:
            stat = os.stat(f"{folder}/{SUMMARY}")  # noqa: PTH116 - half of a look was making paths
        except OSError:
            read_summary(folder, ignored, check_summary)  # which says why
            return None
        place = "/".join(folder.parts[-4:])
        found = self._known.get(place)
        if found is None or found[:2] != (stat.st_size, stat.st_mtime_ns):
            record = read_summary(folder, ignored, check_summary)
            if record is None:
                return None
            stamp = (stat.st_size, stat.st_mtime_ns)
            found = Glance(*stamp, record["status"], record["budget"], record["trial"])
        self._found[place] = found
        return found

    def keep(self) -> None:
        """For the next look; without a word where the folder cannot be written."""
        if self._found != self._known:
            with suppress(UserError):
                write_atomic(self.path, _glances.dump_json(self._found).decode())
