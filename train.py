"""Train and test one configuration, or with -m every combination of several; see --help."""

from __future__ import annotations

import sys

from miles_repro.cli import train

if __name__ == "__main__":
    sys.exit(train())
