"""Write docs/api.md from the docstrings: ``python scripts/api_page.py [--check]``.

``--check`` only says whether the page is current.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "api.md"
PUBLIC = {
    "In a training loop of your own": (
        "miles_repro.scheduler:MILES",
        "miles_repro.balance:Balancer",
    ),
    "Runs and records from Python": tuple(
        f"miles_repro.api:{name}" for name in ("run", "sweep", "records", "curves")
    ),
    "Writing a strategy": (
        "miles_repro.strategy:Strategy",
        "miles_repro.strategy:Needs",
        "miles_repro.strategy:State",
        "miles_repro.context:Context",
        "miles_repro.context:Batch",
        "miles_repro.context:Segment",
        "miles_repro.hyper:hyper",
    ),
    "Parts of a model": ("miles_repro.fusions.base:Fusion", "miles_repro.tasks:Task"),
    "The paper's rule, and verdicts": ("miles_repro.miles", "miles_repro.verdicts"),
}
"""Heading -> objects, or modules whose public functions and classes are listed."""


def documented(path: str) -> Iterator[tuple[str, object]]:
    """(name, object) of an entry of PUBLIC."""
    module, _, name = path.partition(":")
    found = importlib.import_module(module)
    if name:
        yield name, getattr(found, name)
        return
    for key, value in vars(found).items():
        own = getattr(value, "__module__", None) == module
        if (
            own
            and not key.startswith("_")
            and (inspect.isfunction(value) or inspect.isclass(value))
        ):
            yield key, value


class Bare(str):
    """An annotation as it is written: postponing it has put it into quotes."""

    __repr__ = str.__str__


def signature(function: Callable[..., object]) -> str:
    """Of a function, as it is written, but for defaults that are objects."""
    found = inspect.signature(function)
    bare = [
        p if p.annotation is p.empty else p.replace(annotation=Bare(p.annotation))
        for p in found.parameters.values()
    ]
    returns = Bare(found.return_annotation)
    shown = str(found.replace(parameters=bare, return_annotation=returns))
    return re.sub(r" = <[^>]*>", " = ..", shown)


def entry(name: str, value: object, level: int) -> Iterator[str]:
    """Signature and docstring, a class with its public methods."""
    doc = inspect.getdoc(value)
    shown = name
    if inspect.isclass(value):
        shown = f"class {name}"
    elif isinstance(value, property):
        returns = inspect.signature(value.fget).return_annotation  # type: ignore[arg-type]
        shown = f"{name} -> {returns}"
    elif callable(value):
        shown = name + signature(value)
    yield f"{'#' * level} `{' '.join(shown.split())}`\n\n```text\n{doc}\n```\n"
    if inspect.isclass(value):
        for key, member in vars(value).items():
            shown_here = inspect.isfunction(member) or isinstance(member, property)
            if shown_here and member.__doc__ and not key.startswith("_"):
                yield from entry(f"{name}.{key}", member, level + 1)


def page() -> str:
    """The text of docs/api.md."""
    lines = [
        "# API\n\nWritten by `python scripts/api_page.py` from docstrings: do not edit by hand.\n"
        "Strategies have their cards in [strategies.md](strategies.md).\n"
    ]
    for heading, paths in PUBLIC.items():
        lines.append(f"## {heading}\n")
        for path in paths:
            for name, value in documented(path):
                lines += entry(name, value, 3)
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Exit code 1: ``--check`` found the page not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if not current")
    if not parser.parse_args(argv).check:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
        return 0
    print(f"{PAGE} is not current: run python scripts/api_page.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
