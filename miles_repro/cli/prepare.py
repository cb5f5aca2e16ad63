"""Raw data set -> prepared folder: ``miles-prepare --help``."""

from __future__ import annotations

import sys

from miles_repro.data import prepare


def main() -> int:
    return prepare.main(sys.argv[1:])
