"""What Hydra says of a mistaken command line, in one line that names the right key."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from miles_repro import places
from miles_repro.errors import one_line

LONGEST = 400
NO_KEY = re.compile(r"Could not override '([^']+)'|Could not append to config|full_key: (\S+)")
NO_CHOICE = re.compile(r"Could not find '([^']+)/([^'/]+)'")
OPTIONS = re.compile(r"Available options in '[^']+':\s*(.*?)\s*(?:Config search path|$)", re.DOTALL)


def explain(error: Exception) -> str:
    """The error's text on one line, with the key or choice that was probably meant."""
    text = str(error)
    if isinstance(error, RecursionError) or "RecursionError" in text:
        return "configuration: a value refers to itself (an interpolation loop)"
    if choice := NO_CHOICE.search(text):
        options = OPTIONS.search(text)
        names = options[1].split() if options else []
        return f"no {choice[1]} {_quote(choice[2])}{_near(choice[2], names)}{_all(names)}"
    key = NO_KEY.search(text)
    if key and (key[1] or key[2]):
        name = key[1] or key[2]
        lists = f"{places.command('train')} --cfg job"
        return f"no key {_quote(name)}{_near(name, _keys())} ({lists} lists all)"
    said = one_line(Exception(text.split("Config search path", maxsplit=1)[0]))[:LONGEST]
    return said or f"configuration: {type(error).__name__}"


def of_hydra(error: Exception) -> bool:
    """Whether the composition of a configuration raised it, with no class of its own."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    return module.partition(".")[0] in ("hydra", "omegaconf", "antlr4")


def _quote(name: str) -> str:
    return repr(name[:80])


def _near(name: str, known: list[str]) -> str:
    group, _, last = name.rpartition(".")
    if last == "name" and (places.CONF / group).is_dir():
        choices = " or ".join(sorted(path.stem for path in (places.CONF / group).glob("*.yaml")))
        return f": choose with {group}= ({choices})"
    same = [key for key in known if key.rpartition(".")[2] == last and key != name]
    found = same or difflib.get_close_matches(name, known, n=2, cutoff=0.6)
    return f": did you mean {' or '.join(found[:3])}?" if found else ""


def _all(names: list[str]) -> str:
    return f" (there are {', '.join(names)})"[:LONGEST] if names else ""


def _keys() -> list[str]:
    """Every key of the configuration that this command line composes, its mistake apart."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    groups = {path.name for path in places.CONF.iterdir() if path.is_dir()} - {
        "hydra",
        "experiment",
    }
    chosen = [a for a in sys.argv[1:] if re.fullmatch(r"\w+=\w+", a) and a.split("=")[0] in groups]
    for overrides in (chosen, []):
        GlobalHydra.instance().clear()
        try:
            with initialize_config_dir(str(places.CONF), version_base="1.3"):
                return [*groups, *_paths(compose("config", overrides))]
        except Exception:  # the choice is the mistake, or this is no checkout
            continue
    return []


def _paths(node: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig, OmegaConf

    items = node.items_ex(resolve=False) if isinstance(node, DictConfig) else node.items()
    for key, value in items:
        if key != "search":  # what random search draws from
            yield f"{prefix}{key!s}"
        if OmegaConf.is_dict(value) and key != "search":
            yield from _paths(value, f"{prefix}{key!s}.")
