"""Write docs/strategies.md from the code: ``python scripts/strategy_table.py [--check]``.

Every strategy's needs, yaml, golden vectors and card (its module's docstring); ``--check`` only
says whether the page is current.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "strategies.md"
FAMILIES = (
    *("controls", "unimodal", "learning rates", "gradients", "losses"),
    *("data", "alternation", "teachers", "ensembles"),
)
HEAD = """\
# Strategies

Written by `python scripts/strategy_table.py` from the code: do not edit by hand.

`strategy=<name>` chooses one, under every fusion named beside it; any other combination is refused
before a run starts, with the reason. *Vectors*: expected numbers, computed from the paper's
equations or with the authors' code, that the tests hold the strategy to
(`tests/golden/<name>.json`). *Cost*: an epoch in epochs of vanilla training, as declared for
planning. *Lines*: of the module, its card included.
"""


def entry(path: Path, fusions: dict[str, Any]) -> dict[str, Any]:
    """What the page says of the strategy that the file in conf/strategy describes."""
    from miles_repro.config import build, target

    node = yaml.safe_load(path.read_text())
    kind = target(node)
    module = importlib.import_module(kind.__module__)
    card = inspect.cleandoc(module.__doc__ or "")
    needs = build(node).needs if isinstance(kind.needs, property) else kind.needs
    able = [f for f in fusions if needs.fusions is None or f in needs.fusions]
    most = [m for f in able if (m := fusions[f].max_modalities) is not None]
    many = needs.max_modalities is None and len(most) < len(able)
    golden = ROOT / "tests" / "golden" / path.name.replace(".yaml", ".json")
    found = re.search(r"\(([^()]*(?:\d{4}|arXiv)[^()]*)\)", card.split("\n\n")[0])
    return {
        "name": path.stem,
        "label": node["label"] if "$" not in node["label"] else path.stem.capitalize(),
        "family": node["family"],
        "paper": found[1].replace("\n", " ") if found else "-",
        "vectors": len(json.loads(golden.read_text())["vectors"]) if golden.exists() else 0,
        "fusions": "any" if len(able) == len(fusions) else ", ".join(able) or "-",
        "M >= 3": "yes" if many else "no",
        "multilabel": "yes" if needs.tasks is None or "multilabel" in needs.tasks else "no",
        "cost": f"{needs.passes:g}",
        "lines": len(inspect.getsource(module).splitlines()),
        "card": card,
    }


def page() -> str:
    """The whole page."""
    from miles_repro.config import target

    fusions = {
        p.stem: target(yaml.safe_load(p.read_text()))
        for p in sorted((ROOT / "conf" / "fusion").glob("*.yaml"))
    }
    found = [entry(p, fusions) for p in sorted((ROOT / "conf" / "strategy").glob("*.yaml"))]
    found.sort(key=lambda e: (FAMILIES.index(e["family"]), e["name"]))
    linked = [{**e, "name": f"[{e['name']}](#{e['name']})"} for e in found]
    table = [{k: v for k, v in e.items() if k not in ("label", "card")} for e in linked]
    cards = [f"## {e['name']}\n\n{e['label']}.\n\n```text\n{e['card']}\n```\n" for e in found]
    return "\n".join([HEAD, tabulate(table, "keys", "github", disable_numparse=True), "", *cards])


def main(argv: list[str]) -> int:
    """Exit code 1: ``--check`` found the page not current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if not current")
    check, text = parser.parse_args(argv).check, page()
    if not check:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        name = PAGE.relative_to(ROOT)
        print(
            f"error: {name} is not current: run python scripts/strategy_table.py", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # works without an installation
    sys.exit(main(sys.argv[1:]))
