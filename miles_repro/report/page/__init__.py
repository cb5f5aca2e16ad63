"""One self-contained HTML page: own script and style inlined, no network, readable without script.

Rooms: `model` (all that the page shows, as one JSON of numbers that are in the CSV tables),
`boards` (one fusion's rows and paired differences), `answers` (sentences), `curves` (epochs),
`cards` (method cards); template.html, style.css and the scripts, which draw and compute nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from miles_repro.report.page.model import model
from miles_repro.report.provenance import Origin
from miles_repro.report.table import Sheet
from miles_repro.selection import Study

FOLDER = Path(__file__).parent
SCRIPTS = ("dom", "charts", "plots", "state", "board", "drawer", "views", "app")
"""In the order in which they need each other."""
PAPER_SHEETS = tuple(f"table{number}" for number in range(1, 7))

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def page(
    studies: Sequence[Study],
    sheets: Sequence[Sheet],
    origin: Origin,
    rows: Rows,
    runs_url: str | None = None,
) -> str:
    """The report as HTML.

    Args:
        rows: run id -> lines of metrics.jsonl, of as many decision runs as are at hand.
        runs_url: address of the W&B project that holds the same runs.
    """
    style = _read("style.css")
    script = '"use strict";\n' + "".join(_read(f"{name}.js") for name in SCRIPTS)
    filled = [sheet for sheet in sheets if sheet.tables]
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_read("template.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        note=re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(origin.note())),
        data=_inline(model(studies, filled, origin, rows, runs_url)),
        paper="".join(_collapsed(sheet) for sheet in filled if sheet.name in PAPER_SHEETS),
        plain="".join(
            _collapsed(sheet, most=1)
            for sheet in filled
            if sheet.name == "claims" or sheet.name.startswith("comparison__")
        ),
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """How a content security policy names the one script, or style, that may act."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _inline(data: Mapping[str, Any]) -> str:
    """JSON that cannot end its script element, or become one."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _collapsed(sheet: Sheet, most: int | None = None) -> str:
    """A sheet as static HTML behind its title; the first `most` of its tables."""
    tables = "".join(table.html() for table in sheet.tables[:most])
    tables = re.sub(r">\s+<", "><", tables).replace(' style="text-align: right;"', "")
    title = html.escape(sheet.title)
    return f'<details id="{sheet.name}"><summary>{title}</summary>{tables}</details>'
