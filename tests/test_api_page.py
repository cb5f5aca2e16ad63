"""docs/api.md is what the docstrings say, and says something of everything public."""

from __future__ import annotations

import subprocess
import sys

from support import REPO


def test_the_page_is_current() -> None:
    command = [sys.executable, "scripts/api_page.py", "--check"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_everything_on_it_is_documented() -> None:
    page = (REPO / "docs" / "api.md").read_text()
    assert "\nNone\n" not in page
    for name in ("class MILES", "`MILES.step(", "class Balancer", "`Balancer.train_step("):
        assert name in page
