"""No record puts markup into a file: one rule on reading, escaping wherever text is written."""

from __future__ import annotations

import csv
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from record_factory import epoch_rows, population

from miles_repro import report
from miles_repro.report import escape
from miles_repro.report.table import Sheet, Table

MARKUP = "\"'></td><script>alert(1)</script><img src=x onerror=alert(2)>"
MARKDOWN = "![x](http://evil.example/) [y][z] **b** `c` a|b <b> &lt; [z]: //evil.example"
LATEX = r"\input{/etc/passwd} $\nothing{$ %comment ^_{} ~ \write18{id}"
LINES = "one\n\n<b>two\n# three\n\\input{four}\n"
FORMULA = '=HYPERLINK("http://evil.example")'
HOSTILE = (MARKUP, MARKDOWN, LATEX, LINES, FORMULA)


class Page(HTMLParser):
    """Elements, attributes and the text outside scripts and styles of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def elements(page: Page) -> Counter[str]:
    """How many of each there are; what our notes set as code may be more or less."""
    return Counter(tag for tag, _ in page.found if tag != "code")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = written(tmp_path_factory.mktemp("plain"), "label")
    return Page((folder / "report.html").read_text())


def written(folder: Path, text: str) -> Path:
    """A report of records whose every shown line is ``text``, unchecked."""
    records = population(strategies=("miles", "vanilla", "ogm"), seeds=(1, 2, 3))
    for record in records:
        record |= {"label": text, "family": text, "command": text, "metric": text}
        record["environment"] = {**record["environment"], "commit": text, "device": text}
    rows = {record["run_id"]: epoch_rows(record, 2) for record in report.dynamics_runs(records)}
    report.write_all(records, folder, command=text, commit=text, dynamics=rows)
    return folder


@pytest.mark.parametrize("text", HOSTILE)
def test_the_report_of_hostile_records(text: str, plain: Page, tmp_path: Path) -> None:
    folder = written(tmp_path, text)
    page = Page((folder / "report.html").read_text())
    assert elements(page) == elements(plain)
    for _, attributes in page.found:
        assert not [name for name in attributes if name.startswith("on")]
        for value in attributes.values():
            assert not (value or "").lower().lstrip().startswith(("javascript:", "http"))
    policies = [
        attributes["content"] or ""
        for tag, attributes in page.found
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "script-src 'unsafe-inline'" not in policies[0]
    for path in folder.rglob("*.svg"):
        assert "<script" not in path.read_text()
    for path in folder.rglob("*.md"):
        check_markdown(path.read_text())
    for path in folder.rglob("*.tex"):
        check_latex(path.read_text())
    for path in folder.rglob("*.csv"):
        check_csv(path)


def table_of(text: str) -> Table:
    columns = [("", text), (text, "ours"), (text, "theirs")]
    table = Table(text, columns, [dict.fromkeys(columns, text)], [text, f"By `{text}`."])
    table.bold.add((0, columns[1]))
    table.data.append({"text": text, "number": -1.5})
    return table


@pytest.mark.parametrize("text", HOSTILE)
def test_every_part_of_a_table_is_escaped(text: str, tmp_path: Path) -> None:
    table = table_of(text)
    page = Page(table.html())
    assert elements(page) == elements(Page(table_of("x").html()))
    markdown, latex, cells = Sheet("sheet", text, [table], [text]).write(tmp_path)
    check_markdown(markdown.read_text())
    check_latex(latex.read_text())
    check_csv(cells)


def check_markdown(text: str) -> None:
    prose = re.sub(r"(?<!\\)`[^`]*`", "", text)
    assert not re.search(r"(?<!\\)<[\w/!?]", prose)
    assert not re.search(r"(?<!\\)\][(\[:]", prose)
    for line in text.splitlines():
        assert not line.startswith(("# three", "<b>", "\\input"))
        if line.startswith("|"):
            assert not re.search(r"a\|b", line)


def check_latex(text: str) -> None:
    for line in text.splitlines():
        if not line.startswith("%"):
            assert "\\input" not in line
            assert "\\write" not in line
            assert not re.search(r"(?<!\\)%", line)


def check_csv(path: Path) -> None:
    with path.open(newline="") as file:
        for row in csv.reader(file):
            assert not [cell for cell in row if cell.startswith(("=", "@"))]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("  @x", "'  @x"),
        ("-x", "'-x"),
        ("+cmd", "'+cmd"),
        ("-1.5", "-1.5"),
        ("+0.3 ± 0.1", "+0.3 ± 0.1"),
        ("-1+HYPERLINK(1)", "'-1+HYPERLINK(1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        (-1.5, -1.5),
        (None, None),
        ("miles", "miles"),
    ],
)
def test_formulas_in_csv(value: object, expected: object) -> None:
    assert escape.csv(value) == expected


def test_our_own_code_and_numbers_stay_readable() -> None:
    note = "Made by `make tables a_b [x](y)` at <c>, 95 % [1, 2], p < 0.001."
    assert escape.markdown_note(note) == note.replace("<c>", "\\<c>")
    assert "<code>make tables a_b [x](y)</code> at &lt;c&gt;" in escape.html_note(note)
    assert escape.latex("-1.5 --x") == "$-$1.5 -{}-x"


@pytest.mark.parametrize("text", ["__bold__", "~~struck~~", "_slanted_"])
def test_words_in_lines_are_no_markup(text: str) -> None:
    assert re.sub(r"\\[_~]", "", escape.markdown(text)).isalpha()
    assert escape.markdown("static_lr") == "static_lr"


@pytest.mark.parametrize("text", ["[2ex]", "*"])
def test_a_row_begins_with_no_option_of_the_line_before(text: str) -> None:
    assert escape.latex(text) == f"{{}}{text}"
