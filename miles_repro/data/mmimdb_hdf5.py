"""Reads multimodal_imdb.hdf5, the file Arevalo et al. publish beside the raw MM-IMDb.

It holds, a row per film: ``images`` (3, 256, 160) int32, blue-green-red with the VGG network's mean
colour subtracted and fractions cut off; ``sequences``, the plot as ids of an own vocabulary (0
unknown; the words are in a separate pickle, which is never opened); ``genres``, 0/1, with the names
in the attribute ``target_names``; ``imdb_ids``; and the split as the attribute ``split``, a table
in the layout of the Fuel library.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.media import BadFile, need, square
from miles_repro.data.mmimdb_raw import PARTS, Film, LeaveOut
from miles_repro.errors import UserError, one_line

VGG_MEAN = np.array([103.939, 116.779, 123.68]).reshape(3, 1, 1)  # blue, green, red
_NEEDED = ("images", "sequences", "genres", "imdb_ids")
_CHANNELS = 3
_LOOK = 64  # posters looked at to tell whether a mean was subtracted


def read_films(
    path: Path,
    genres: Sequence[str],
    sizes: Mapping[str, int],
    leave_out: LeaveOut,
    notes: list[str],
) -> list[Film]:
    """All usable films of the file in the order of their ids; words are named after their ids.

    Args:
        path: the file.
        genres: the names labels are numbered by.
        sizes: films of train, val and test; used when the file has no split of its own.
        leave_out: told of every film that cannot be used.
        notes: what the reader assumed is appended here.

    Raises:
        UserError: the file is damaged, or not laid out as described above.
    """
    with _open(path) as file, _laid_out(path):
        missing = [name for name in _NEEDED if not hasattr(file.get(name), "shape")]
        if missing:
            raise UserError(f"{path} has no dataset {', '.join(missing)}: not multimodal_imdb.hdf5")
        shape = file["images"].shape
        if len(shape) != 4 or shape[1] != _CHANNELS:
            raise UserError(f"{path}: images are {shape}, expected (films, 3, height, width)")
        short = [name for name in _NEEDED if file[name].shape[:1] != shape[:1]]
        if short:
            raise UserError(f"{path}: {short[0]} has {file[short[0]].shape}, images {shape}")
        columns = _genre_columns(path, file["genres"], genres, notes)
        labels = file["genres"][:][:, columns] > 0
        part_of = _parts(path, file, shape[0], sizes, notes)
        ids = [i.decode() if isinstance(i, bytes) else str(i) for i in file["imdb_ids"][:]]
        sequences = [[int(word) for word in plot] for plot in file["sequences"][:]]
    films = []
    for row in sorted(range(len(ids)), key=ids.__getitem__):
        words = ["unknown" if word == 0 else f"w{word}" for word in sequences[row]]
        known = tuple(np.flatnonzero(labels[row]).tolist())
        if not words:
            leave_out(f"{path}:{ids[row]}", "empty plot")
        elif not known:
            leave_out(f"{path}:{ids[row]}", "none of the 23 genres")
        else:
            films.append(Film(part_of[row], known, "", words, (path, row)))
    return films


def mean_subtracted(path: Path) -> bool:
    """Whether posters are stored as differences from the mean colour, in blue-green-red."""
    with _open(path) as file:  # posters have dark pixels: as plain colours none would be negative
        return bool((file["images"][:_LOOK] < 0).any())


def read_poster(path: Path, row: int, size: int, shifted: bool) -> NDArray[np.uint8]:
    """Poster of a row as RGB, stretched to a square: uint8 (3, size, size).

    Args:
        path, row: where it is.
        size: side of the result in pixels.
        shifted: what ``mean_subtracted`` says of the file.

    Raises:
        BadFile: the row cannot be read.
    """
    from PIL import Image

    try:
        with _open(path) as file:
            stored = file["images"][row].astype(np.float64)
    except OSError as error:
        raise BadFile(path, f"poster of row {row} cannot be read ({error})") from None
    rgb = (stored + VGG_MEAN)[::-1] if shifted else stored
    pixels = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return square(Image.fromarray(pixels.transpose(1, 2, 0)), size)


@contextmanager
def _laid_out(path: Path) -> Iterator[None]:
    """Turn what another layout raises into a UserError."""
    try:
        yield
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        raise UserError(
            f"{path} is not laid out as multimodal_imdb.hdf5, or damaged ({one_line(error)})"
        ) from None


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise need("h5py") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): download it again") from None


def _genre_columns(path: Path, labels: Any, genres: Sequence[str], notes: list[str]) -> list[int]:
    """Column of each genre in the file."""
    names = labels.attrs.get("target_names")
    if names is None:
        if labels.shape[1] != len(genres):
            raise UserError(f"{path} has {labels.shape[1]} genres without names, not {len(genres)}")
        notes.append("the file does not name its genres: taken as most frequent first")
        return list(range(len(genres)))
    found = [str(name) for name in json.loads(names)]
    if sorted(found) != sorted(genres):
        odd = sorted(set(found) ^ set(genres))
        raise UserError(f"{path} has other genres than the 23 of MM-IMDb: {', '.join(odd)}")
    return [found.index(genre) for genre in genres]


def _parts(
    path: Path, file: Any, count: int, sizes: Mapping[str, int], notes: list[str]
) -> list[str]:
    """Part of each row, from the file's split or, failing that, the official sizes in order."""
    table = file.attrs.get("split")
    bounds = {}
    if table is not None:
        for entry in table:
            if entry["source"] == b"images":
                name = entry["split"].decode()
                bounds[PARTS.get(name, name)] = (int(entry["start"]), int(entry["stop"]))
    elif count == sum(sizes.values()):
        notes.append("the file has no split: official sizes in the order train, val, test taken")
        ends = np.cumsum(list(sizes.values())).tolist()
        bounds = {p: (end - n, end) for (p, n), end in zip(sizes.items(), ends, strict=True)}
    parts = [""] * count
    for part, (start, stop) in bounds.items():
        parts[start:stop] = [part] * (stop - start)
    if set(bounds) != set(sizes) or "" in parts or len(parts) != count:
        raise UserError(f"{path} has no usable split: train, dev and test must cover every row")
    return parts
