"""Plots to token ids: a vocabulary of words, or the WordPieces of a local BERT tokenizer.

Both use 0 for padding, on the right. Word ids: 1 is the unknown word, 2 the most frequent one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miles_repro.errors import UserError

PAD, UNKNOWN = 0, 1
RESERVED = 2  # ids below this are not words

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+")


def split_words(text: str) -> list[str]:
    """Lower-case words; digits stand for themselves, punctuation is dropped."""
    return _WORD.findall(text.lower().replace("’", "'"))


def build_vocabulary(texts: Iterable[Sequence[str]], size: int) -> list[str]:
    """The most frequent words of tokenised training texts, ties in alphabetical order.

    Word k has id k + 2; there are at most ``size`` ids in all.
    """
    counts = Counter(word for words in texts for word in words)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return ranked[: max(0, size - RESERVED)]


def word_ids(
    texts: Sequence[Sequence[str]], vocabulary: Sequence[str], length: int
) -> NDArray[np.int32]:
    """Tokenised texts -> (N, length), cut or padded on the right."""
    index = {word: i + RESERVED for i, word in enumerate(vocabulary)}
    return _pad([[index.get(w, UNKNOWN) for w in words[:length]] for words in texts], length)


class WordPieces:
    """A BERT tokenizer read from a local folder with tokenizer.json or vocab.txt.

    Raises:
        UserError: no such folder or file, another kind of tokenizer, or the package is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tokenizers import BertWordPieceTokenizer, Tokenizer
        except ImportError:
            raise UserError(
                "tokenizer=<folder> needs the package tokenizers: pip install 'miles-repro[text]'"
            ) from None
        names = ("tokenizer.json", "vocab.txt")
        file = next((folder / name for name in names if (folder / name).is_file()), None)
        if file is None:
            raise UserError(f"tokenizer={folder}: no tokenizer.json or vocab.txt there")
        try:
            if file.name == "tokenizer.json":
                self._tokenizer = Tokenizer.from_file(str(file))
            else:
                lower = _lower_case(folder)
                self._tokenizer = BertWordPieceTokenizer(str(file), lowercase=lower)
        except Exception as error:  # the Rust library raises nothing more specific
            raise UserError(f"{file} is not a tokenizer: {error}") from None
        self._tokenizer.no_padding()
        marks = [self._tokenizer.token_to_id(t) for t in ("[PAD]", "[CLS]")]
        empty = self._tokenizer.encode("").ids
        if marks[0] != PAD or not empty or empty[0] != marks[1]:
            raise UserError(f"{file} is not BERT's: [PAD] must be id 0 and [CLS] come first")

    def ids(self, texts: Sequence[str], length: int) -> tuple[NDArray[np.int32], list[int]]:
        """(N, length) ids with [CLS] and [SEP], and the uncut length of each text."""
        self._tokenizer.no_truncation()
        lengths = [len(e.ids) for e in self._tokenizer.encode_batch(list(texts))]
        self._tokenizer.enable_truncation(length)
        encoded = self._tokenizer.encode_batch(list(texts))
        return _pad([e.ids for e in encoded], length), lengths


def _pad(rows: Sequence[Sequence[int]], length: int) -> NDArray[np.int32]:
    out = np.full((len(rows), length), PAD, dtype=np.int32)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


def _lower_case(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return True
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")).get("do_lower_case", True))
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is not a json object ({error})") from None
