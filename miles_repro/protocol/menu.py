"""What can be asked for: the strategies of the configuration, their groups, and composing a run.

A strategy is on the menu when its yaml is: in ``conf/strategy``, or in the folder ``strategy`` of a
``hydra.searchpath`` entry. Its ``family`` there makes the groups. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from miles_repro.errors import UserError
from miles_repro.paper import PAPER_ROWS
from miles_repro.places import CONF

UNIMODAL = "unimodal"
"""Table I: asked for once, run for every modality."""
CORE = (*PAPER_ROWS, "vanilla_aux", "ume", UNIMODAL)
"""With the family ``controls``: what a claim about balancing is held against."""


@dataclass(frozen=True)
class Entry:
    """A strategy as its yaml presents it."""

    name: str
    label: str
    family: str


def menu(overrides: Iterable[str] = ()) -> dict[str, Entry]:
    """Every strategy by name: the paper's rows in their order, then by family and name."""
    import yaml

    found: dict[str, Entry] = {}
    for folder in (CONF, *_search_path(overrides)):
        for path in sorted((folder / "strategy").glob("*.yaml")):
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            label, family = content.get("label", path.stem), content.get("family", "other")
            found.setdefault(path.stem, Entry(path.stem, str(label), str(family)))

    def order(entry: Entry) -> tuple[int, str, str]:
        place = list(PAPER_ROWS).index(entry.name) if entry.name in PAPER_ROWS else len(PAPER_ROWS)
        return (place, entry.family, entry.name)

    return {entry.name: entry for entry in sorted(found.values(), key=order)}


def _search_path(overrides: Iterable[str]) -> list[Path]:
    """The folders that ``hydra.searchpath=[file://..]`` names."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    asked = [o for o in overrides if o.lstrip("+").startswith("hydra.searchpath=")]
    entries = [
        str(entry)
        for parsed in OverridesParser.create().parse_overrides(asked)
        for entry in list(parsed.value())  # type: ignore[arg-type]
    ]
    return [Path(e.removeprefix("file://")) for e in entries if not e.startswith("pkg://")]


def expand(words: Sequence[str], overrides: Iterable[str] = ()) -> tuple[str, ...]:
    """Names of strategies and families, ``all``, ``paper`` or ``core`` -> strategies, each once.

    Raises UserError for a word that is none of these.
    """
    known = menu(overrides)
    families = {entry.family.replace(" ", "_") for entry in known.values()}
    found: dict[str, None] = {}
    for word in words:
        if word in known:
            chosen = [word]
        elif word == "all":
            chosen = list(known)
        elif word == "paper":
            chosen = [*PAPER_ROWS, UNIMODAL]
        elif word == "core":
            chosen = [n for n, e in known.items() if n in CORE or e.family == "controls"]
        elif word.replace(" ", "_") in families:
            chosen = [
                n for n, e in known.items() if e.family.split() == word.replace("_", " ").split()
            ]
        else:
            raise UserError(
                f"strategy {word!r}: neither a group (all, paper, core, "
                f"{', '.join(sorted(families))}) nor a strategy ({', '.join(known)})"
            )
        found |= dict.fromkeys(chosen)
    return tuple(found)
