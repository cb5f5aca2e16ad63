"""One self-contained HTML page: no script, no network, readable on a phone."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from miles_repro.report.figures import Picture
from miles_repro.report.names import place
from miles_repro.report.provenance import Origin, commits, cost_text
from miles_repro.report.table import Sheet, Table
from miles_repro.selection import Study

STYLE = """
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0 auto;max-width:76rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;
background:#fff;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.2}h2{font-size:1.25rem;margin-top:2.5rem;padding-top:.5rem;
border-top:1px solid #d0d0d0}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem;margin:1rem 0}
a{color:#0a58a8}
figure{margin:1.2rem 0}
figcaption{font-weight:600;margin-bottom:.4rem}
.picture figcaption{font-weight:400;font-size:.9rem;color:#444;margin-top:.3rem}
.scroll{overflow-x:auto;border:1px solid #d8d8d8;border-radius:4px}
.scroll:focus{outline:2px solid #0a58a8}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.3rem .6rem;text-align:right;white-space:nowrap}
th{background:#f3f4f6;font-weight:600}
tbody tr{background:#fff}
tbody tr:nth-child(even){background:#f8f8f8}
th[colspan]{text-align:center}
.leads2 td:nth-child(2),.leads2 thead tr:last-child th:nth-child(2){text-align:left}
th:first-child,td:first-child,.prose td,.prose th{text-align:left}
.numbers td:first-child{position:sticky;left:0;background:inherit}
.prose td{white-space:normal;min-width:7rem;vertical-align:top}
.prose td:nth-child(n+3){min-width:15rem}
#claims>figure td:first-child{min-width:15rem}
#claims>figure td:nth-child(n+2){min-width:7rem}
@media(max-width:40rem){details .prose thead{display:none}
details .prose tr,details .prose td{display:block}
details .prose tr{padding:.4rem 0}
details .prose td,details .prose td:nth-child(n+3){min-width:0;padding:.1rem .6rem}
details .prose td:first-child{font-weight:600}}
.picture img{display:block;width:100%;min-width:36rem;max-width:62rem;height:auto}
.notes{margin:.5rem 0 0;padding-left:1.1rem;font-size:.8rem;color:#444}
code{font-size:.9em;overflow-wrap:anywhere}
details summary{cursor:pointer;font-weight:600;margin:1rem 0}
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing is loaded and no script runs, whatever text the page holds."""


def page(
    studies: Sequence[Study],
    sheets: Sequence[Sheet],
    pictures: Sequence[tuple[Picture, Path]],
    origin: Origin,
) -> str:
    """The report: `pictures` are figures with their SVG files."""
    filled = [sheet for sheet in sheets if sheet.tables]
    links = "".join(f'<a href="#{sheet.name}">{html.escape(sheet.title)}</a>' for sheet in filled)
    sections = "".join(_section(sheet) for sheet in filled)
    figures = "".join(_picture(picture, file) for picture, file in pictures)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>MILES reproduction report</title><style>{STYLE}</style></head><body>"
        f"<h1>MILES reproduction report</h1>{_summary(studies, origin)}"
        f'<nav aria-label="Contents">{links}<a href="#figures">Figures</a></nav>'
        f'{sections}<section id="figures"><h2>Figures</h2>{figures}</section></body></html>\n'
    )


def _section(sheet: Sheet) -> str:
    first, *others = [table.html() for table in sheet.tables]
    rest = "".join(others)
    if sheet.name == "claims":  # verdicts first, the evidence on demand
        rest = f"<details><summary>Test and numbers behind each verdict</summary>{rest}</details>"
    title = html.escape(sheet.title)
    return f'<section id="{sheet.name}"><h2>{title}</h2>{first}{rest}</section>'


def _summary(studies: Sequence[Study], origin: Origin) -> str:
    table = Table(
        "What was run",
        [("", name) for name in ("data", "runs", "seeds", "strategies", "code", "cost")],
    )
    for study in studies:
        runs = study.records
        texts = (
            place(study),
            str(len(runs)),
            str(len({run["seed"] for run in runs})),
            str(len({run["strategy"] for run in runs})),
            commits(runs),
            cost_text(runs),
        )
        table.rows.append(dict(zip(table.columns, texts, strict=True)))
    table.notes = [origin.note()]
    return table.html()


def _picture(picture: Picture, svg: Path) -> str:
    data = base64.b64encode(svg.read_bytes()).decode()
    caption = html.escape(picture.caption)
    return (
        f"<figure class=picture id={picture.name}><div class=scroll tabindex=0>"
        f'<img alt="{caption}" src="data:image/svg+xml;base64,{data}"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )
