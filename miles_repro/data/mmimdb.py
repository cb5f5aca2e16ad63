"""Prepares MM-IMDb (Arevalo et al. 2017): plot and poster of a film, 23 genres, multilabel.

Raw folder, either form::

    dataset/<imdb id>.json, dataset/<imdb id>.jpeg, split.json     (mmimdb.tar.gz)
    multimodal_imdb.hdf5                                           (used if split.json is absent)

Prepared: ``image`` uint8 (3, size, size), the whole poster stretched to a square; ``text`` int32
(length,), the longest plot as word ids, or as the WordPieces of a BERT tokenizer; ``labels`` uint8
(23,). One scheme, ``official``: the split that comes with the data, 15,552 / 2,608 / 7,799. The
paper says only that preprocessing follows Arevalo et al.; length, size and vocabulary are ours,
set in conf/dataset/mmimdb.yaml.

Rules: every film of the split needs its json with a list of genres, of which one at least is among
the 23, and a plot with a word in it, and a poster that can be read. A film that lacks one is
refused, or, with ``partial=true``, left out and reported; ``partial`` also allows other counts than
the real set's (a subset or a stand-in), and the manifest says so. Genres beyond the 23 are ignored
and counted. Posters that are grey, palette or CMYK are converted to RGB and listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial as bind
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data import mmimdb_hdf5, mmimdb_raw
from miles_repro.data.download import Source
from miles_repro.data.media import BadFile, read_image
from miles_repro.data.mmimdb_raw import Film, LeaveOut
from miles_repro.data.splits import shuffled
from miles_repro.data.words import RESERVED, WordPieces, build_vocabulary, word_ids
from miles_repro.data.writer import Card, Preparation, Refuse, Skip
from miles_repro.errors import UserError

VERSION = 1
GENRES = (  # the 23 of Arevalo et al., most frequent first
    *("Drama", "Comedy", "Romance", "Thriller", "Crime", "Action", "Adventure", "Horror"),
    *("Documentary", "Mystery", "Sci-Fi", "Fantasy", "Family", "Biography", "War", "History"),
    *("Music", "Animation", "Musical", "Western", "Sport", "Short", "Film-Noir"),
)
DOWNLOAD = Source(
    page="https://archive.org/details/mmimdb",
    listing="https://archive.org/metadata/mmimdb",
    files=("mmimdb.tar.gz",),
    at="https://archive.org/download/mmimdb/{name}",
    licence="none stated: research use; posters and plots belong to their owners",
)
SIZES = {"train": 15_552, "val": 2_608, "test": 7_799}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, std of RGB in [0, 1]
ORDER_SEED = 0


def prepare(
    raw: Path | None,
    out: Path,
    *,
    size: int,
    length: int,
    vocab_size: int,
    tokenizer: str,
    partial: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Film genres (23 labels, several a film) from plot and poster.

    Args:
        raw: the folder described above.
        out: the folder to write.
        size: side of the posters in pixels.
        length: tokens of a plot, including a tokenizer's [CLS] and [SEP]; longer plots are cut.
        vocab_size: word ids in all; the most frequent words of the training plots get one.
        tokenizer: folder of a BERT tokenizer; empty for word ids.
        partial: leave out films that cannot be used, and accept other counts.
        workers: processes; all cores when None.

    Returns:
        The manifest. ``parameters.vocabulary`` holds the words, in the order of their ids from 2.

    Raises:
        UserError: the raw folder is not of either form, films are refused, or counts differ.
    """
    if raw is None:
        raise UserError("mmimdb needs raw=<folder with dataset/ and split.json, or the hdf5 file>")
    if min(size, length) < 1 or vocab_size <= RESERVED:
        raise UserError(f"size, length and vocab_size={vocab_size} must be positive (words > 2)")
    pieces = WordPieces(Path(tokenizer)) if tokenizer else None
    notes: list[str] = []
    bad: list[tuple[object, str]] = []

    def leave_out(file: object, reason: str) -> None:
        bad.append((file, reason))

    films = _read(Path(raw), pieces is not None, leave_out, notes)
    hdf5 = bool(films) and films[0].picture[0].suffix == ".hdf5"
    shifted = hdf5 and mmimdb_hdf5.mean_subtracted(films[0].picture[0])
    vocabulary = build_vocabulary((f.words for f in films if f.part == "train"), vocab_size)
    card = Card(
        name="mmimdb",
        version=VERSION,
        task="multilabel",
        classes=GENRES,
        source="MM-IMDb (Arevalo et al. 2017), https://archive.org/details/mmimdb",
        licence="no licence stated: research use; posters and plots belong to their owners",
        parameters={
            "size": size,
            "length": length,
            "vocab_size": vocab_size,
            "tokenizer": tokenizer,
            "partial": partial,
            "form": "hdf5" if hdf5 else "raw",
            "vocabulary": "" if pieces else " ".join(vocabulary),
        },
    )
    with Preparation(out, card, workers) as prep:
        for file, reason in bad:
            (prep.skip if partial else prep.refuse)(file, reason)
        for note in notes:
            prep.note(note)
        kept = prep.fill(
            [film.picture for film in films],
            bind(decode, size=size, shifted=shifted, lenient=partial),
            {"image": ((3, size, size), "uint8")},
        )
        films = [films[i] for i in kept]
        _check_sizes(prep, films, partial)
        prep.write("text", _tokens(prep, films, pieces, vocabulary, length))
        labels = np.zeros((len(films), len(GENRES)), dtype=np.uint8)
        for row, film in zip(labels, films, strict=True):
            row[list(film.genres)] = 1
        prep.write("labels", labels)
        part_of = np.array([film.part for film in films])
        prep.split(
            "official", **{p: shuffled(np.flatnonzero(part_of == p), ORDER_SEED) for p in SIZES}
        )
        mean, std = (255 * np.array(v).reshape(3, 1, 1) for v in IMAGENET)
        prep.normalise("image", constants=(mean, std))
        return prep.finish()


def decode(
    picture: tuple[Path, int], size: int, shifted: bool, lenient: bool
) -> dict[str, NDArray[np.uint8]]:
    """The poster of one film; ``shifted``: see ``mmimdb_hdf5.mean_subtracted``.

    Raises:
        Skip, Refuse: it cannot be read, ``lenient`` or not.
    """
    path, row = picture
    try:
        if path.suffix == ".hdf5":
            return {"image": mmimdb_hdf5.read_poster(path, row, size, shifted)}
        return {"image": read_image(path, size)}
    except BadFile as bad:
        raise (Skip if lenient else Refuse)(bad.path, bad.reason) from None


def _read(raw: Path, with_plot: bool, leave_out: LeaveOut, notes: list[str]) -> list[Film]:
    """Films of either raw form in the order of their ids; all problems go to ``leave_out``."""
    if (raw / "split.json").is_file():
        return mmimdb_raw.read_films(raw, GENRES, leave_out, notes)
    hdf5 = raw / "multimodal_imdb.hdf5"
    if not hdf5.is_file():
        raise UserError(
            f"{raw} holds neither split.json (with dataset/) nor multimodal_imdb.hdf5: give the "
            "folder made by unpacking mmimdb.tar.gz, or the one with the hdf5 file"
        )
    if with_plot:
        raise UserError(f"{hdf5} holds word ids, no text to tokenize: bert needs the raw form")
    return mmimdb_hdf5.read_films(hdf5, GENRES, SIZES, leave_out, notes)


def _check_sizes(prep: Preparation, films: Sequence[Film], partial: bool) -> None:
    found = Counter(film.part for film in films)
    if all(found[part] == n for part, n in SIZES.items()):
        return
    text = " / ".join(f"{found[part]:,}" for part in SIZES)
    real = " / ".join(f"{n:,}" for n in SIZES.values())
    if not partial:
        raise UserError(f"{text} films, the real MM-IMDb has {real}: give partial=true to go on")
    empty = [part for part in SIZES if not found[part]]
    if empty:
        raise UserError(f"{text} films: no film for {', '.join(empty)}")
    prep.stand_in(f"NOT the real MM-IMDb: {text} films for train / val / test instead of {real}")


def _tokens(
    prep: Preparation,
    films: Sequence[Film],
    pieces: WordPieces | None,
    vocabulary: Sequence[str],
    length: int,
) -> NDArray[np.int32]:
    if pieces is None:
        ids = word_ids([film.words for film in films], vocabulary, length)
        lengths = [len(film.words) for film in films]
    else:
        ids, lengths = pieces.ids([film.plot for film in films], length)
    cut = sum(n > length for n in lengths)
    if cut:
        prep.note(f"{cut:,} plot(s) longer than {length} tokens cut")
    return ids
