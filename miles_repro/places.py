"""Where the files beside the code are: in a checkout at its top level, in a wheel in the package.

setup.py maps the folders when a wheel is built; a checkout and an editable install hold no copies.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = None if (PACKAGE / "conf").is_dir() else PACKAGE.parent
"""Top level of the checkout this package runs from, None in a wheel."""
CONF = CHECKOUT / "conf" if CHECKOUT else PACKAGE / "conf"
"""The menu of configurations."""
PAPER = CHECKOUT / "results" / "paper" if CHECKOUT else PACKAGE / "paper"
"""The paper's published numbers."""
TRAIN = (
    [sys.executable, str(CHECKOUT / "train.py")]
    if CHECKOUT
    else [*(sys.executable, "-m", "miles_repro.cli.train")]
)
"""The command that trains, as a subprocess starts it."""


def command(name: str) -> str:
    """What a user types for ``train``, ``reproduce`` or ``prepare``."""
    script = {"train": "train.py", "prepare": "scripts/prepare_data.py"}
    return f"python {script.get(name, f'scripts/{name}.py')}" if CHECKOUT else f"miles-{name}"


def quoted(text: str) -> str:
    """As a value that Hydra reads as it is."""
    if re.fullmatch(r"[A-Za-z0-9_/:.-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
