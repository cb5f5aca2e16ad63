"""The commands: ``miles-train``, ``miles-reproduce``, ``miles-prepare``."""

from __future__ import annotations

import importlib
import os
import sys

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


def _run(module: str) -> int:
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
