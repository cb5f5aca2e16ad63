"""The paper's numbers, from results/paper/*.csv (one number per row)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from miles_repro import places
from miles_repro.errors import UserError

FOLDER = places.PAPER


@dataclass(frozen=True)
class Printed:
    """One published number: percent, points or an epoch. erratum: id in errata.csv or ''."""

    value: float
    erratum: str


Key = tuple[int, str, str, str, str, str]


@cache
def _numbers(folder: Path) -> dict[Key, Printed]:
    found: dict[Key, Printed] = {}
    for table in range(1, 7):
        file = folder / f"table{table}.csv"
        try:
            with file.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    names = ("dataset", "fusion", "method", "setting", "quantity")
                    dataset, fusion, method, setting, quantity = (row[name] for name in names)
                    key = (table, dataset, fusion, method, setting, quantity)
                    found[key] = Printed(float(row["value"]), row["erratum"])
        except (OSError, KeyError, ValueError) as error:
            raise UserError(
                f"cannot read the published numbers in {file} ({error}): restore the file, "
                "for instance with git checkout"
            ) from error
    return found


def published(
    table: int,
    dataset: str,
    fusion: str,
    method: str,
    quantity: str,
    setting: str = "",
    folder: Path = FOLDER,
) -> Printed | None:
    """The paper's number for one entry of Tables I to VI (1 to 6), None where it has none."""
    return _numbers(folder).get((table, dataset, fusion, method, setting, quantity))
