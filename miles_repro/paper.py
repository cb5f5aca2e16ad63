"""What the paper says (MILES, arXiv 2510.17394): its rows, data sets, settings and numbers.

The numbers are in results/paper/*.csv, one a row.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from miles_repro import places
from miles_repro.errors import UserError

PAPER_ROWS = {
    "vanilla": "Vanilla",
    "mslr_k": "MSLR-K",
    "mslr_s": "MSLR-S",
    "mslr_d": "MSLR-D",
    "ogm": "OGM",
    "ogm_ge": "OGM-GE",
    "mses": "MSES",
    "gblend": "G-Blend",
    "miles": "MILES",
}
"""The nine rows of Tables II and III, in their order."""

DATASETS = {"cremad": "CREMA-D", "smnist": "S-MNIST", "luma": "LUMA", "mmimdb": "MM-IMDb"}
"""In the order of its tables."""

MODALITIES = {
    "cremad": ("audio", "video"),
    "smnist": ("image", "audio"),
    "luma": ("audio", "image"),
    "mmimdb": ("text", "image"),
}
"""Data set -> its strong and its weak modality (Table I)."""

FUSIONS = {"concat": "concatenation", "sum": "summation"}
"""Tables II and III."""

DEFAULTS = {"tau": 0.2, "mu": 0.5}
"""Sec. V-C."""

TAUS = ("0.5", "0.3", "0.2", "0.1", "0.0")
"""Table IV."""
MUS = ("1.0", "0.75", "0.5", "0.25", "0.1", "0.05", "0.01")
"""Table V."""
SOURCES = ("train", "val")
"""Table VI: the split whose metrics schedule."""

TRIALS = 80
"""Random-search trials of a cell; each table shows one run, the best of them."""

NEAR = {"concat": 1.8 + 1.6, "sum": 2.0 + 2.0}
"""Distance in points of MILES' heads from unimodal models: mean plus spread (Tables I to III)."""

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
