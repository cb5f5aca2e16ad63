"""A table once, written as Markdown, LaTeX (booktabs), CSV, HTML or to the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from miles_repro.records import disk_errors, write_atomic
from miles_repro.report import escape
from miles_repro.report.names import NOT_RUN
from miles_repro.stats import Interval

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

NONE = "–"
Column = tuple[str, str]
"""(group, name): groups span columns in LaTeX and HTML, Markdown joins the two."""
FUSION: Column = ("", "fusion")
FAMILY: Column = ("", "family")
LINE = 100
"""Characters of small type that a LaTeX line holds."""
WORD = 12
"""A terminal's columns of single words up to this length break none."""
PREAMBLE = "% Needs \\usepackage{booktabs}\n"


@dataclass
class Table:
    """Display strings by row, the notes that belong under them, and the same numbers tidy.

    rows: column -> text (absent = none); bold: (row index, column); data: rows of the CSV file;
    leads: how many columns on the left are names; prose: cells are sentences, to be wrapped.
    """

    title: str
    columns: list[Column]
    rows: list[dict[Column, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    bold: set[tuple[int, Column]] = field(default_factory=set)
    data: list[dict[str, Any]] = field(default_factory=list)
    leads: int = 1
    prose: bool = False

    def cells(
        self, mark: tuple[str, str] = ("", ""), form: Callable[[str], str] = str
    ) -> list[list[str]]:
        """Text per row and column in a file's form; bold cells between the two parts of `mark`."""
        before, after = mark
        found = []
        for i, row in enumerate(self.rows):
            texts = [(column, form(row.get(column, NONE))) for column in self.columns]
            bold = {column for column in self.columns if (i, column) in self.bold}
            found.append([f"{before}{t}{after}" if column in bold else t for column, t in texts])
        return found

    @property
    def grouped(self) -> bool:
        return any(group for group, _ in self.columns)

    def heads(self) -> list[str]:
        return [f"{group}: {name}" if group else name for group, name in self.columns]

    def frame(self, cells: list[list[str]] | None = None) -> pd.DataFrame:
        """The display strings, with two header levels where the columns are grouped."""
        import pandas as pd

        columns = pd.MultiIndex.from_tuples(self.columns) if self.grouped else self.heads()
        return pd.DataFrame(cells or self.cells(), columns=columns)

    def markdown(self) -> str:
        import pandas as pd

        cells = self.cells(mark=("**", "**"), form=escape.markdown)
        frame = pd.DataFrame(cells, columns=list(map(escape.markdown, self.heads())))
        names = len(self.columns) if self.prose else self.leads
        align = ["left"] * names + ["right"] * (len(self.columns) - names)
        body = frame.to_markdown(index=False, disable_numparse=True, colalign=align)
        notes = "\n".join(f"- {escape.markdown_note(note)}" for note in self.notes)
        return f"### {escape.markdown(self.title)}\n\n{body}\n\n{notes}\n"

    def latex(self, label: str) -> str:
        r"""Booktabs tables, as many as the columns need to stay readable on a page; the caption has
        the title and the first note, the others are comments."""
        parts = [self.columns] if self.prose else self._parts()
        texts = [self._tabular(columns) for columns in parts]
        caption = " ".join([escape.latex(self.title) + ".", *map(escape.latex, self.notes[:1])])
        head = "\\begin{table}[htbp]\n\\centering\n\\small\n"
        middle = "\n\\medskip\n\n".join(texts)
        comments = "".join(map(escape.latex_comment, self.notes[1:]))
        end = f"\\caption{{{caption}}}\n\\label{{tab:{label}}}\n\\end{{table}}\n"
        return comments + head + middle + end

    def _parts(self) -> list[list[Column]]:
        """Columns in stretches that fit a line, the names on the left repeated; groups whole."""
        leads, rest = self.columns[: self.leads], self.columns[self.leads :]
        groups: list[list[Column]] = []
        for column in rest:
            if groups and column[0] and groups[-1][0][0] == column[0]:
                groups[-1].append(column)
            else:
                groups.append([column])
        room = LINE - sum(map(self._width, leads))
        parts: list[list[Column]] = [[]]
        for group in groups:
            if parts[-1] and sum(map(self._width, [*parts[-1], *group])) > room:
                parts.append([])
            parts[-1] += group
        return [leads + part for part in parts]

    def _width(self, column: Column) -> int:
        """Characters of a column's widest text, and the space beside it."""
        return 2 + max(len(text) for text in (column[1], *(r.get(column, NONE) for r in self.rows)))

    def _tabular(self, columns: list[Column]) -> str:
        def line(cells: Iterable[str]) -> str:
            return " & ".join(cells) + " \\\\\n"

        names = [tuple(map(escape.latex, column)) for column in columns]
        head = ""
        if any(group for group, _ in columns):
            spans = [(group, len(list(of))) for group, of in groupby(names, itemgetter(0))]
            head = line(
                f"\\multicolumn{{{n}}}{{c}}{{{group}}}" if n > 1 else group for group, n in spans
            )
        body = ""
        for i, row in enumerate(self.rows):
            cells = [escape.latex(row.get(column, NONE)) for column in columns]
            marked = [(i, column) in self.bold for column in columns]
            body += line(
                f"\\textbf{{{c}}}" if bold else c for c, bold in zip(cells, marked, strict=True)
            )
        head += line(name for _, name in names)
        return (
            f"\\begin{{tabular}}{{{self._column_format(columns)}}}\n\\toprule\n{head}"
            f"\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
        )

    def _column_format(self, columns: list[Column]) -> str:
        if not self.prose:
            return "l" * self.leads + "r" * (len(columns) - self.leads)
        # The longest column takes the room the others leave.
        longest = max(
            self.columns, key=lambda column: max(len(row.get(column, "")) for row in self.rows)
        )
        others = len(self.columns) - 1
        width = max(0.3, 1 - 0.17 * others)
        rest = min(0.14, 0.7 / max(others, 1) - 0.03)
        return "".join(
            f"p{{{width if column == longest else rest:.2f}\\linewidth}}" for column in self.columns
        )

    def html(self) -> str:
        frame = self.frame(self.cells(mark=("<strong>", "</strong>"), form=escape.html))
        frame.columns = frame.columns.map(
            lambda name: tuple(map(escape.html, name)) if self.grouped else escape.html(name)
        )
        kind = "prose" if self.prose else "numbers"
        table = frame.to_html(
            index=False, escape=False, border=0, classes=[kind, f"leads{self.leads}"]
        )
        notes = "".join(f"<li>{escape.html_note(note)}</li>" for note in self.notes)
        title = escape.html(self.title)
        return (
            f"<figure class=table><figcaption>{title}</figcaption>"
            f'<div class=scroll tabindex=0 role=region aria-label="{title}">{table}</div>'
            f"<ul class=notes>{notes}</ul></figure>"
        )

    def rich(self) -> Group:
        """The table and its notes for a terminal of any width; lines part the families."""
        from rich import box, markup
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=markup.escape(self.title), box=box.SIMPLE_HEAD, padding=0, show_edge=False
        )
        shown = [j for j, column in enumerate(self.columns) if column != FAMILY]
        heads, plain = self.heads(), self.cells()
        for j in shown:
            side: Literal["left", "right"] = "left" if j < self.leads else "right"
            short = all(len(row[j]) <= WORD and " " not in row[j] for row in plain)
            head = markup.escape(heads[j])
            table.add_column(head, justify=side, overflow="fold", no_wrap=short)
        for i, row in enumerate(self.cells(mark=("[bold]", "[/bold]"), form=markup.escape)):
            before = self.rows[i - 1] if i else self.rows[i]
            if any(self.rows[i].get(key) != before.get(key) for key in (FUSION, FAMILY)):
                table.add_section()
            table.add_row(*(row[j] for j in shown))
        notes = [Text(note.replace("`", ""), style="dim") for note in self.notes]
        return Group(table, *notes)


@dataclass
class Sheet:
    """One file of tables: a published table over all data sets, or one study's comparison."""

    name: str
    title: str
    tables: list[Table]
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> list[Path]:
        """Write <name>.md, .tex and .csv; returns the paths."""
        import pandas as pd

        markdown = [f"## {escape.markdown(self.title)}\n"]
        markdown += [f"{escape.markdown_note(note)}\n" for note in self.notes]
        markdown += [table.markdown() for table in self.tables]
        latex = PREAMBLE + "".join(map(escape.latex_comment, self.notes))
        latex += "\n".join(
            table.latex(f"{self.name}_{i}") for i, table in enumerate(self.tables, start=1)
        )
        rows = [
            {key: escape.csv(value) for key, value in row.items()}
            for table in self.tables
            for row in table.data
        ]
        data = pd.DataFrame(rows, dtype=object)  # whole numbers beside gaps stay whole
        texts = {
            ".md": "\n".join(markdown),
            ".tex": latex,
            ".csv": data.to_csv(index=False, lineterminator="\n"),
        }
        return [write_text(folder / f"{self.name}{suffix}", text) for suffix, text in texts.items()]


def write_text(path: Path, text: str) -> Path:
    """Write a file whole or not at all, making its folder."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text)
    return path


def show(found: Interval | None, *, sign: bool = False, digits: int = 1) -> str:
    """`97.0 ± 0.4`, `97.0 (no CI)` without an interval, `not yet run` for none."""
    if found is None:
        return NOT_RUN
    mean = fixed(found.mean, sign=sign, digits=digits)
    return (
        f"{mean} (no CI)" if found.half is None else f"{mean} ± {fixed(found.half, digits=digits)}"
    )


def fixed(value: float, *, sign: bool = False, digits: int = 1) -> str:
    """A number with so many decimals, never a negative zero."""
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}" if sign else f"{rounded:.{digits}f}"


def show_p(p: float | None) -> str:
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
