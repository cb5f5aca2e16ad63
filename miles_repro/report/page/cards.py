"""Method cards: what the modules of the strategies that ran say of themselves."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from miles_repro import places


def cards(strategies: Iterable[str]) -> dict[str, str]:
    """Strategy -> docstring of its module, for those on the menu. Nothing that a record names is
    looked up, and no strategy is imported."""
    found = {name: _card(places.CONF / "strategy" / f"{name}.yaml") for name in strategies}
    return {name: card for name, card in found.items() if card}


def _card(menu: Path) -> str | None:
    import yaml

    if not menu.is_file():
        return None
    target = (yaml.safe_load(menu.read_text(encoding="utf-8")) or {}).get("_target_")
    try:
        spec = find_spec(target.rpartition(".")[0]) if target else None
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return inspect.cleandoc(text) if text else None
