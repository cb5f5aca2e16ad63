"""A finished run's test predictions, class by class: ``python scripts/evaluate.py --help``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works without an installation
    from miles_repro.cli.evaluate import main

    sys.exit(main())
