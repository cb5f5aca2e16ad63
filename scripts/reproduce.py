"""The paper's protocol as one resumable command: ``python scripts/reproduce.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation
    from miles_repro.cli import reproduce

    sys.exit(reproduce())
