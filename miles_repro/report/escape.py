"""Text that may be foreign, fit for the file it is written to: the one place where that is done.

Records are checked when they are read (``records.summary``), which leaves labels, commands and
commits as lines of any letters. Written through these they are words in every format, never markup.
"""

from __future__ import annotations

import html as _html
import re

_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
"""What our own notes set as code."""
_MARKDOWN = re.compile(r"[\\*`~]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|<(?=[\w/!?])|&(?=[#\w]+;)")
"""What begins markup; a bracket without a link and an underscore inside a word are none."""
_FORMULA = re.compile(r"\s*([=@]|[+-](?![\d.][^(|!]*\Z))")
"""What a spreadsheet may calculate; a signed number and words behind it are none."""
_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "|": r"\textbar{}",
    "†": r"$\dagger$",
    "τ": r"$\tau$",
    "μ": r"$\mu$",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
    "`": "",
}


def html(text: str) -> str:
    """For content and for attributes in quotation marks."""
    return _html.escape(_line(text))


def html_note(text: str) -> str:
    """As `html`, what stands between backticks as code."""
    return _CODE.sub(r"<code>\1</code>", html(text))


def markdown(text: str) -> str:
    """For a heading or a table's cell."""
    return _words(_line(text)).replace("|", r"\|")


def markdown_note(text: str) -> str:
    """For a paragraph or a list's item, what stands between backticks as code."""
    parts = _CODE.split(_line(text))  # odd ones are code
    return "".join(f"`{p}`" if i % 2 else _words(p) for i, p in enumerate(parts))


def latex(text: str) -> str:
    """For text; a minus before digits becomes one."""
    # Two hyphens of an option would be set as a dash.
    parts = ("".join(_TEX.get(c, c) for c in part) for part in _line(text).split("--"))
    escaped = "-{}-".join(parts)
    escaped = re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)
    return f"{{}}{escaped}" if escaped[:1] in ("[", "*") else escaped  # no option of the line break


def latex_comment(text: str) -> str:
    """A line that TeX does not read."""
    return f"% {_line(text)}\n"


def csv(value: object) -> object:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return value


def _words(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", text)


def _line(text: str) -> str:
    return " ".join(text.split())
