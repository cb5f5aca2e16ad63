"""Which module imports which: no circle."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from support import REPO

PACKAGE = "miles_repro"


def modules(root: Path) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in root.rglob("*.py")
    }


def on_import(body: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the module is imported: none in functions, none for types alone."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from on_import(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for name in ("body", "orelse", "finalbody", "handlers"):
                for part in getattr(node, name, []):
                    inner = part.body if isinstance(part, ast.ExceptHandler) else [part]
                    yield from on_import(inner)


def graph(found: dict[str, Path]) -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for module, path in found.items():
        names = set()
        for node in on_import(ast.parse(path.read_text()).body):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif node.level == 0 and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= (inner & found.keys()) or {node.module}
        edges[module] = {name for name in names if name in found and name != module}
    return edges


def circle(edges: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_import_circle() -> None:
    edges = graph(modules(REPO / PACKAGE))
    assert "miles_repro.evaluate" in edges["miles_repro.loop"]
    assert circle(edges) == []


@pytest.mark.parametrize(
    "line, found",
    [
        ("import miles_repro.a", ["miles_repro.a", "miles_repro.b", "miles_repro.a"]),
        ("try:\n    from miles_repro import a\nexcept ImportError: pass", ["miles_repro.a"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from miles_repro import a", []),
        ("def f():\n    from miles_repro.a import x", []),
    ],
)
def test_a_circle_would_be_found(line: str, found: list[str], tmp_path: Path) -> None:
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("from miles_repro import b\n")
    (folder / "b.py").write_text(line)
    assert set(found) <= set(circle(graph(modules(folder))))
    assert bool(found) == bool(circle(graph(modules(folder))))
