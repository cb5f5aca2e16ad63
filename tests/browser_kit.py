"""What tests of the report page do in a browser: choose, click, read texts."""

from __future__ import annotations

import json
from typing import Any

from devtools import Browser
from page_kit import Made

from miles_repro.report.table import fixed

VIEWS = ("answer", "board", "heat", "robustness", "ablations", "cards")
TABLE = """[...document.querySelectorAll("tr[data-row]")].map(row => Object.fromEntries(
  [["s", row.dataset.row], ...[...row.querySelectorAll("[data-col]")].map(
    cell => [cell.dataset.col, (cell.querySelector(".difference small") || cell).textContent])]))"""
WIDTHS = """JSON.stringify({
  page: document.documentElement.scrollWidth,
  out: [...document.querySelectorAll("body *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1 && !e.closest(".scroll, nav, .skip, noscript");
  }).map(e => e.outerHTML.slice(0, 120)),
  small: [...document.querySelectorAll("p, li, td, th, small, label, text")].filter(
    e => e.textContent.trim() && e.getBoundingClientRect().width
      && parseFloat(getComputedStyle(e).fontSize) < 11).length})"""

PRINTED = """JSON.stringify({
  wide: [...document.querySelectorAll("body *")].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width && box.right > innerWidth + 1;
  }).map(e => e.outerHTML.slice(0, 120)),
  controls: [...document.querySelectorAll("nav, form, .skip, button.tool")].filter(
    e => e.checkVisibility()).map(e => e.outerHTML.slice(0, 120)),
  tables: [...document.querySelectorAll("#paper details")].map(
    e => [...e.querySelectorAll("td")].every(cell => cell.checkVisibility(
      {contentVisibilityAuto: true}) && cell.getBoundingClientRect().height > 0)),
  colours: [getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor],
})"""


def signed(value: float) -> str:
    return fixed(value, sign=True, digits=2).replace("-", "−")


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")
    settle(browser)


def settle(browser: Browser) -> None:
    browser.run("new Promise(done => setTimeout(done, 60))")


def choose(browser: Browser, name: str, value: str) -> None:
    field = f"document.getElementById('choose-{name}')"
    browser.run(f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('change'))")
    settle(browser)


def board(browser: Browser, made: Made, **state: str) -> dict[str, dict[str, Any]]:
    """The leaderboard's texts by strategy, in the order shown."""
    text = "&".join(f"{key}={value}" for key, value in {"view": "board", **state}.items())
    browser.open(made.file, text)
    return {row["s"]: row for row in browser.run(TABLE)}


def rows(browser: Browser, selector: str) -> list[list[str]]:
    """The texts of the body rows of the tables that a selector finds."""
    found: list[list[str]] = browser.run(
        f"[...document.querySelectorAll({json.dumps(selector + ' tbody tr')})]"
        ".map(row => [...row.children].map(cell => cell.textContent))"
    )
    return found


def level(line: dict[str, Any], none: str) -> str:
    """A CSV line's mean and interval as tables show them."""
    if line["mean"] is None:
        return none
    if line["ci_low"] is None:
        return f"{fixed(line['mean'])} (no CI)"
    return f"{fixed(line['mean'])} ± {fixed((line['ci_high'] - line['ci_low']) / 2)}"
