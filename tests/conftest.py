"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from devtools import Browser
    from page_kit import Made
    from protocols import Make

# The same examples in every run, and no verdict from a clock on a busy machine.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of stand-in raw data sets (not part of the product); skips where it is absent."""
    root = Path(os.environ.get("MILES_SHARED", REPO.parent / "shared")) / "data"
    if not root.is_dir():
        pytest.skip(f"stand-in data not found at {root}: set MILES_SHARED to test on it")
    return root


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data folder with the synthetic prepared sets of ``support.prepare_tiny``."""
    from support import prepare_tiny

    return prepare_tiny(tmp_path_factory.mktemp("data"))


@pytest.fixture
def request_tiny(tiny_data: Path, tmp_path: Path) -> Make:
    """Makes a protocol on the tiny data set from names of strategies and changes of the request."""
    from protocols import protocol_on

    return partial(protocol_on, tiny_data, tmp_path)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A report page on records of every kind, and its CSV tables."""
    from page_kit import make, mixed

    return make(tmp_path_factory.mktemp("report"), mixed(), runs_url="https://wandb.ai/me/mine")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless browser, 1280 pixels wide; skips where none is installed."""
    from devtools import BROWSERS, Browser, installed

    program = installed()
    if program is None:
        pytest.skip(f"no browser found (looked for {', '.join(BROWSERS)}): install chromium")
    with Browser(program, tmp_path_factory.mktemp("profile")) as found:
        found.screen(1280)
        yield found


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The examples can be imported."""
    monkeypatch.syspath_prepend(str(REPO / "examples"))
    yield
    for name in ("toy", "lightning_callback", "hf_trainer"):
        sys.modules.pop(name, None)
