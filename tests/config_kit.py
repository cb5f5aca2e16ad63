"""What the tests of configurations share."""

from __future__ import annotations

import os
import subprocess
import sys

from support import REPO, TEST_CONF


def train_py(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    ours = (f"hydra.searchpath=[file://{TEST_CONF}]", "tracker=none")
    return subprocess.run(
        [sys.executable, str(REPO / "train.py"), *arguments, *ours],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=REPO,
        env={**os.environ, **environment},
    )
