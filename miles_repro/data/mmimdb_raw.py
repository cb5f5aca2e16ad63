"""Reads MM-IMDb's raw form: ``split.json``, and a json and a jpeg per film in ``dataset/``."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from miles_repro.data.media import BadFile, check_file, image_mode
from miles_repro.data.words import split_words
from miles_repro.errors import UserError

PARTS = {"train": "train", "dev": "val", "test": "test"}  # the data's name -> ours

LeaveOut = Callable[[object, str], None]


class Film(NamedTuple):
    """A film that passed the checks; ``picture``: a file and, in an HDF5 file, the row."""

    part: str
    genres: tuple[int, ...]
    plot: str
    words: list[str]
    picture: tuple[Path, int]


def read_films(
    raw: Path, genres: Sequence[str], leave_out: LeaveOut, notes: list[str]
) -> list[Film]:
    """All usable films of the split in the order of their ids.

    Args:
        raw: the folder with ``split.json`` and ``dataset/``.
        genres: the names labels are numbered by.
        leave_out: told of every film that cannot be used.
        notes: what a reader of the manifest should know is appended here.

    Raises:
        UserError: no folder ``dataset``, or a split that is none.
    """
    folder = raw / "dataset"
    if not folder.is_dir():
        raise UserError(f"no folder dataset beside {raw / 'split.json'}")
    part_of = _read_split(raw / "split.json")
    others: Counter[str] = Counter()
    converted: list[str] = []
    films = []
    for imdb_id, part in sorted(part_of.items()):
        path, poster = folder / f"{imdb_id}.json", folder / f"{imdb_id}.jpeg"
        try:
            plot, named = _read_film(path)
            if image_mode(poster) != "RGB":
                converted.append(imdb_id)
        except BadFile as bad:
            leave_out(bad.path, bad.reason)
            continue
        others.update(g for g in named if g not in genres)
        known = tuple(sorted(genres.index(g) for g in set(named) if g in genres))
        if known:
            films.append(Film(part, known, plot, split_words(plot), (poster, 0)))
        else:
            leave_out(path, "none of the 23 genres")
    if others:
        notes.append(f"genres beyond the 23 ignored: {dict(sorted(others.items()))}")
    if converted:
        notes.append(f"{len(converted)} poster(s) converted to RGB: {' '.join(converted)}")
    strangers = sum(path.stem not in part_of for path in folder.glob("*.json"))
    if strangers:
        notes.append(f"{strangers} film(s) in dataset/ that split.json does not name ignored")
    return films


def _read_split(path: Path) -> dict[str, str]:
    try:
        split = json.loads(path.read_text(encoding="utf-8"))
        pairs = [(str(i), ours) for theirs, ours in PARTS.items() for i in split[theirs]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is not a split (lists of ids under train, dev and test): {error!r}"
        ) from None
    part_of = dict(pairs)
    strange = next((i for i in part_of if not re.fullmatch(r"\w{1,64}", i)), None)
    if strange is not None:
        raise UserError(f"{path}: {strange!r} is not the id of a film")
    if len(part_of) != len(pairs):
        twice = Counter(i for i, _ in pairs).most_common(1)[0][0]
        raise UserError(f"{path} names film {twice} more than once")
    return part_of


def _read_film(path: Path) -> tuple[str, list[str]]:
    """Longest plot and genres of a film's json."""
    check_file(path)
    try:
        film = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(path, f"not readable as json ({error})") from None
    if not isinstance(film, dict):
        raise BadFile(path, "is not a json object")
    for key in ("genres", "plot"):
        if key not in film:
            raise BadFile(path, f"no key '{key}'")
        value = film[key]
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise BadFile(path, f"'{key}' is not a list of texts")
    plot = max(film["plot"], key=len, default="")
    if not split_words(plot):
        raise BadFile(path, "empty plot")
    return plot, film["genres"]
