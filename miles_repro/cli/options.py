"""Options of the commands: kinds of values, and mistakes in one line."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import NoReturn

MOST_SEEDS = 10_000


class OneLine(argparse.ArgumentParser):
    """Says what is wrong in one line; ``--help`` has the rest."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {' '.join(message.split())} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number from 1")
    return int(text)


def seeds(text: str) -> int:
    if at_least_one(text) > MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text}: give at most {MOST_SEEDS:,}")
    return int(text)


def new_file(text: str) -> Path:
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text or 'nothing'}: name a file, not a folder")
    return Path(text)


def price(text: str) -> float:
    if not 0 <= float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 0")
    return float(text)


def positive(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return float(text)
