"""The runs that overrides stand for: several values of a key, or the lines of a file."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from miles_repro.errors import UserError

MOST = 1_000_000
"""Runs of one sweep: each is a list of words in memory."""


class Grid:
    """Expands overrides. ``loader``: Hydra's, for ``glob(*)``."""

    def __init__(self, loader: Any = None) -> None:
        self._parser = OverridesParser.create(config_loader=loader)
        self._known: dict[str, tuple[str, list[str]]] = {}

    def runs(self, texts: Iterable[str]) -> list[list[str]]:
        """Every combination, the last key fastest; of two values for one key the later counts.

        Raises:
            UserError: more than MOST.
        """
        axes = dict(self._axis(text) for text in texts)
        if math.prod(map(len, axes.values())) > MOST:
            raise UserError(f"a sweep has at most {MOST:,} runs: split it")
        return [list(run) for run in itertools.product(*axes.values())]

    def listed(self, file: str, before: Sequence[str], after: Sequence[str]) -> list[list[str]]:
        """The runs of a file's lines, in shell syntax, with overrides before and after each.

        Raises:
            UserError: no such file, or a line that cannot be split into words.
        """
        if not Path(file).is_file():  # a pipe would be waited for
            raise UserError(f"hydra.sweeper.jobs={file}: no such file")
        try:
            lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as e:
            raise UserError(f"hydra.sweeper.jobs={file}: {e}") from None
        found: list[list[str]] = []
        for number, line in enumerate(lines, 1):
            try:
                words = shlex.split(line, comments=True)
                found += self.runs([*before, *words, *after]) if words else []
            except (ValueError, HydraException) as e:
                said = str(e).splitlines()[0]
                raise UserError(f"hydra.sweeper.jobs={file}, line {number}: {said}") from None
        return found

    def _axis(self, text: str) -> tuple[str, list[str]]:
        if text not in self._known:
            override = self._parser.parse_override(text)
            key = override.get_key_element()
            if not override.is_sweep_override():
                values = [override.get_value_element_as_str()]
            elif override.is_discrete_sweep():
                values = list(itertools.islice(override.sweep_string_iterator(), MOST + 1))
            else:
                raise UserError(f"{text}: list the values; an interval has no end of them")
            self._known[text] = key, [f"{key}={value}" for value in values]
        return self._known[text]
