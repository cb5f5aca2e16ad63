"""The official clips of CREMA-D and the part each plays in every split scheme.

A clip is ``<actor>_<sentence>_<emotion>_<level>``. Every actor spoke twelve sentences: one of them
(IEO) neutrally and in five emotions at three levels, the others neutrally and in the five emotions
at no given level. That makes 82 takes; 20 of the 91 x 82 clips were never published.

``embedded/cremad_splits.csv`` has a row per actor and a column per scheme; character k of a cell
says where the actor's k-th take (in sorted order) goes: t train, v val, e test, - no such clip.
Splits are looked up there, so they never depend on which files a raw folder happens to hold.
How each was drawn, and the licences: ``embedded/cremad_splits.md``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")  # the order of the literature's class ids
SCHEMES = ("miles_70_15_15", "ogm_ge", "actor")
PARTS = {"t": "train", "v": "val", "e": "test"}

_LEVELLED = "IEO"
_SENTENCES = (
    *("DFA", "IEO", "IOM", "ITH", "ITS", "IWL"),
    *("IWW", "MTI", "TAI", "TIE", "TSI", "WSI"),
)
TAKES = tuple(
    sorted(
        f"{sentence}_{emotion}_{level}"
        for sentence in _SENTENCES
        for emotion in EMOTIONS
        for level in (("LO", "MD", "HI") if sentence == _LEVELLED and emotion != "NEU" else ("XX",))
    )
)


@dataclass(frozen=True)
class Clip:
    """One official clip; ``parts``: scheme -> train, val or test."""

    name: str
    parts: dict[str, str]

    @property
    def label(self) -> int:
        """Position of the intended emotion in EMOTIONS."""
        return EMOTIONS.index(self.name.split("_")[2])


def official_clips() -> list[Clip]:
    """All 7,442 clips, sorted by name."""
    path = resources.files("miles_repro.data") / "embedded" / "cremad_splits.csv"
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    return [
        Clip(f"{row['id']}_{take}", {scheme: PARTS[row[scheme][k]] for scheme in SCHEMES})
        for row in rows
        for k, take in enumerate(TAKES)
        if row[SCHEMES[0]][k] != "-"
    ]
