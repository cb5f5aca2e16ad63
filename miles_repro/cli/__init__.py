"""The commands: ``miles-train``, ``miles-reproduce``, ``miles-prepare``."""

from __future__ import annotations

import importlib
import io
import os
import sys
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any numerical library starts its threads


def train() -> int:
    """``python train.py`` in a checkout."""
    return _run("miles_repro.cli.train")


def reproduce() -> int:
    """``python scripts/reproduce.py`` in a checkout."""
    return _run("miles_repro.cli.reproduce")


def prepare() -> int:
    """``python scripts/prepare_data.py`` in a checkout."""
    return _run("miles_repro.cli.prepare")


class Outlet(io.FileIO):
    """A standard output whose reader may leave, as ``head`` does: the work goes on unseen."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)


def _run(module: str) -> int:
    if type(sys.stdout) is io.TextIOWrapper:  # not one that collects what is printed
        outlet = io.BufferedWriter(Outlet(sys.stdout.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(
            outlet, sys.stdout.encoding, sys.stdout.errors, line_buffering=sys.stdout.line_buffering
        )
    try:
        return importlib.import_module(module).main()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("miles_repro"):
            raise
        print(
            f"error: {error.name} is not installed: pip install 'miles-repro[suite]'",
            file=sys.stderr,
        )
        return 2
