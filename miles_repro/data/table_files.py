"""Columns of file paths as modalities: pictures, recordings, texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.audio import mel_spectrogram
from miles_repro.data.media import BadFile, check_file, inside, read_image, read_wav
from miles_repro.data.table_read import Table
from miles_repro.data.words import RESERVED, build_vocabulary, split_words, word_ids
from miles_repro.data.writer import Preparation, Refuse
from miles_repro.errors import UserError

KINDS = {
    "picture": (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    "recording": (".wav", ".flac", ".ogg"),
    "text": (".txt",),
}
LOG_FLOOR = 1e-6
WINDOW_S, HOP_S = 0.025, 0.010
Settings = Mapping[str, Any]


def kind_of(table: Table, column: str) -> str:
    """``picture``, ``recording`` or ``text``, by the ending that all files of a column share.

    Raises:
        UserError: the column holds no such file names, or several kinds; names the line.
    """
    of_ending = {ending: kind for kind, endings in KINDS.items() for ending in endings}
    kinds = [of_ending.get(Path(text).suffix.lower()) for text in table.columns[column]]
    for row, kind in enumerate(kinds):
        if kind is None or kind != kinds[0]:
            raise UserError(
                f"{table.at(row)}: {column}={table.columns[column][row]!r} is not the name of a "
                f"{kinds[0] or 'picture, recording (wav, flac, ogg) or text (txt)'}: a column "
                f"that is no modality is left out with ignore={column}"
            )
    return str(kinds[0])


def find_files(table: Table, column: str) -> list[Path]:
    """The files of a column, by paths relative to the table's folder.

    Raises:
        UserError: a path leads out of that folder or to no ordinary file; names the line.
    """
    root = table.path.parent.resolve()
    files = []
    for row, text in enumerate(table.columns[column]):
        try:
            path = inside(root, text)
            check_file(path)
        except BadFile as bad:
            raise UserError(f"{table.at(row)}: {bad.path}: {bad.reason}") from None
        files.append(path)
    return files


def fill(
    prep: Preparation, files: Mapping[str, list[Path]], kinds: Mapping[str, str], settings: Settings
) -> None:
    """Decode all pictures and recordings into arrays of the prepared folder."""
    names = [m for m in files if kinds[m] != "text"]
    if not names:
        return
    layout: dict[str, tuple[tuple[int, ...], str]] = {}
    for m in names:
        if kinds[m] == "picture":
            layout[m] = ((3, settings["size"], settings["size"]), "uint8")
        else:
            layout[m] = ((1, settings["n_mels"], _frames(settings)), "float32")
    items = list(zip(*(files[m] for m in names), strict=True))
    prep.fill(items, partial(_decode, names, kinds, settings), layout)


def _frames(settings: Settings) -> int:
    return round(settings["seconds"] / HOP_S)


def _decode(
    names: Sequence[str], kinds: Mapping[str, str], settings: Settings, item: tuple[Path, ...]
) -> dict[str, NDArray[Any]]:
    """Worker: one sample's files as arrays; log mel spectrograms of recordings."""
    try:
        return {
            m: read_image(path, settings["size"])
            if kinds[m] == "picture"
            else _spectrogram(path, settings)
            for m, path in zip(names, item, strict=True)
        }
    except BadFile as bad:
        raise Refuse(bad.path, bad.reason) from None


def _spectrogram(path: Path, settings: Settings) -> NDArray[np.float32]:
    rate, frames = settings["sample_rate"], _frames(settings)
    window, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    wave = read_wav(path, rate)
    mel = mel_spectrogram(wave, rate, window, hop, settings["n_mels"], center=True)[:, :frames]
    mel = np.pad(mel, ((0, 0), (0, frames - mel.shape[1])))
    return np.log(mel + LOG_FLOOR).astype(np.float32)[None]


def read_texts(
    files: Sequence[Path], train: NDArray[np.int64], settings: Settings
) -> tuple[NDArray[np.int32], list[str]]:
    """Word ids (N, length) and the words, which are those of the training rows."""
    texts = []
    for path in files:
        try:
            texts.append(split_words(path.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not text in UTF-8 ({error.reason}): save it so") from None
        if not texts[-1]:
            raise UserError(f"{path}: a text without a word")
    words = build_vocabulary((texts[row] for row in train), settings["vocab_size"])
    return word_ids(texts, words, settings["length"]), words


def vocabulary_size(words: Sequence[str]) -> int:
    return len(words) + RESERVED
