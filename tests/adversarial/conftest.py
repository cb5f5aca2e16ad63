"""The figures of the campaigns, at the end of the session."""

from __future__ import annotations

from typing import Any

from harness import FIGURES


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for campaign, figures in FIGURES.items():
        text = ", ".join(f"{number} {what}" for what, number in figures.items())
        terminalreporter.write_line(f"{campaign}: {text}")
