"""The page on strategies is written from the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import REPO, STRATEGIES

SCRIPT = REPO / "scripts" / "strategy_table.py"


def test_the_committed_page_is_current() -> None:
    found = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPO,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_every_strategy_has_its_row_and_its_card() -> None:
    page = (REPO / "docs" / "strategies.md").read_text()
    for name in STRATEGIES:
        assert page.count(f"\n## {name}\n") == 1
        assert page.count(f"| [{name}](#{name}) ") == 1


@pytest.mark.parametrize("content", [None, "# Strategies\n"])
def test_a_page_of_before_is_told(
    content: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import strategy_table

    monkeypatch.setattr(strategy_table, "ROOT", tmp_path)
    monkeypatch.setattr(strategy_table, "PAGE", tmp_path / "strategies.md")
    monkeypatch.setattr(strategy_table, "page", lambda: "as it is\n")
    if content is not None:
        strategy_table.PAGE.write_text(content)
    assert strategy_table.main(["--check"]) == 1
    assert "strategies.md is not current" in capsys.readouterr().err
    assert strategy_table.main([]) == 0
    assert strategy_table.main(["--check"]) == 0
