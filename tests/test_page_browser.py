"""The report page in a real browser: every shape of records, every screen, paper, no script."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from browser_kit import PRINTED, TABLE, VIEWS, WIDTHS, board
from devtools import Browser
from page_kit import Made, html
from PIL import Image
from record_factory import population, record

pytestmark = pytest.mark.slow
ODD: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "one modality": [record("unimodal_image", seed=seed) for seed in (1, 2)],
    "one strategy": [record("miles", seed=seed) for seed in (1, 2)],
    "one seed": [record(s, seed=1) for s in ("miles", "vanilla", "vanilla_aux")],
    "search only": [record(s, seed=0) for s in ("miles", "vanilla")],
    "no shared seed": [record("miles", seed=1), record("vanilla", seed=2)],
    "diverged": [
        record(s, seed=seed, status="diverged") for s in ("miles", "vanilla") for seed in (1, 2, 3)
    ],
}


@pytest.mark.parametrize("name", ODD)
def test_records_of_every_shape_show(browser: Browser, tmp_path: Path, name: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(html(ODD[name]), encoding="utf-8")
    browser.messages.clear()
    for view in VIEWS:
        for row in ("", "&row=miles", "&row=unimodal_image"):
            browser.open(file, f"view={view}{row}")
            text = browser.run("document.getElementById('main').textContent")
            assert text
            assert view == "cards" or not {"NaN", "undefined", "null", "Infinity"} & set(
                text.split()
            )
    assert browser.messages == []


def test_what_is_shown_can_be_saved(browser: Browser, made: Made) -> None:
    board(browser, made, data="luma__paper", fusion="concat")
    browser.run("window.saved = []; URL.createObjectURL = blob => (saved.push(blob), 'blob:x')")
    for text in ("CSV", "SVG"):
        found = f"[...document.querySelectorAll('button')].find(b => b.textContent === '{text}')"
        browser.run(f"{found}.click()")
    csv, svg = browser.run("Promise.all(saved.map(blob => blob.text()))")
    head, *lines = csv.splitlines()
    assert head.startswith("dataset,fusion,measure,strategy,mean")
    assert len(lines) == len(browser.run(TABLE))
    assert svg.startswith("<svg")
    assert "class=" not in svg
    assert "stroke" in svg


def test_it_needs_no_network_and_complains_about_nothing(browser: Browser, made: Made) -> None:
    browser.requests.clear()
    browser.messages.clear()
    for view in VIEWS:
        browser.open(made.file, f"view={view}")
    browser.open(made.file, "view=nonsense&data=none&fusion=x&measure=y&ref=z&row=w&sort=q")
    assert browser.run("document.querySelector('[aria-current]').textContent") == "Answer"
    assert {url.partition("#")[0] for url in browser.requests} <= {
        made.file.as_uri(),
        "about:blank",
    }
    assert browser.messages == []


@pytest.mark.parametrize("width", [360, 390, 768, 1024, 1280])
def test_no_view_is_wider_than_the_screen(browser: Browser, made: Made, width: int) -> None:
    browser.screen(width)
    for view in VIEWS:
        for more in ("", "&row=miles") if view == "board" else ("",):
            browser.open(made.file, f"view={view}&data=luma__paper{more}")
            found = json.loads(browser.run(WIDTHS))
            assert found == {"page": width, "out": [], "small": 0}, view
    browser.screen(1280)


@pytest.mark.parametrize("width", [390, 1280])
def test_screens_light_and_dark(browser: Browser, made: Made, tmp_path: Path, width: int) -> None:
    shades = []
    for dark in (False, True):
        browser.screen(width, dark=dark)
        browser.open(made.file)
        with Image.open(io.BytesIO(browser.shot(tmp_path / f"{width}-{dark}.png"))) as image:
            grey = image.convert("L").histogram()
        total = sum(grey)
        shades.append(sum(i * count for i, count in enumerate(grey)) / total)
        common = max(range(256), key=lambda i: grey[i])
        assert sum(grey[max(0, common - 60) : common + 60]) < 0.99 * total  # something is drawn
    assert shades[0] > 200 > 60 > shades[1]
    browser.screen(1280)


def test_a_page_of_6000_runs_is_there_in_half_a_second(browser: Browser, tmp_path: Path) -> None:
    paper = ("cremad", "smnist", "luma", "mmimdb")
    records = population(paper, trials=48, seeds=range(1, 6), budget="paper")
    file = tmp_path / "report.html"
    file.write_text(html(records), encoding="utf-8")
    times = []
    for _ in range(5):  # the best: the machine may be busy
        browser.open(file)
        times.append(int(browser.run("document.documentElement.dataset.ready")))
    assert min(times) < 500


def test_without_script_the_tables_show(browser: Browser, made: Made) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=made.file.as_uri())
        text, until = "", time.monotonic() + 20
        while "Without scripts" not in text and time.monotonic() < until:
            text = browser.run("document.readyState == 'complete' ? document.body.innerText : ''")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "Strategies compared: LUMA, budget paper" in text


def test_on_paper_everything_fits_and_the_tables_are_open(
    browser: Browser, made: Made, tmp_path: Path
) -> None:
    """A4 upright leaves some 720 pixels between its margins."""
    browser.screen(720)
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        for view in VIEWS:
            browser.open(made.file, f"view={view}&data=luma__paper")
            found = json.loads(browser.run(PRINTED))
            browser.shot(tmp_path / f"{view}.png", whole=True)
            assert found["wide"] == [], view
            assert found["controls"] == [], view
            assert found["tables"] == ([True] * 6 if view == "answer" else [False] * 6)
            assert found["colours"] == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
        browser.screen(1280)
