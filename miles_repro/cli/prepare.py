"""Raw data set -> prepared folder: ``miles-prepare --help``."""

from __future__ import annotations

import sys

from miles_repro.data import command


def main() -> int:
    return command.main(sys.argv[1:])
