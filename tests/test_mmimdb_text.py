"""MM-IMDb's texts: words, word pieces, vocabulary."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from mmimdb_kit import tokenizer

from miles_repro.data.words import WordPieces, build_vocabulary, split_words, word_ids
from miles_repro.errors import UserError

__all__ = ["tokenizer"]  # fixtures

# ---- words ------------------------------------------------------------------------------------


def test_words() -> None:
    text = "The Cat's 2 lives; can’t-stop: NAÏVE_x\n(end)"
    assert split_words(text) == ["the", "cat's", "2", "lives", "can't", "stop", "naïve", "x", "end"]
    assert split_words(" ...\n-- ") == []


def test_vocabulary_is_by_frequency_then_alphabet_and_bounded() -> None:
    texts = [["b", "a", "c", "c"], ["c", "b", "a", "d"]]
    assert build_vocabulary(texts, 100) == ["c", "a", "b", "d"]
    assert build_vocabulary(texts, 4) == ["c", "a"]


def test_ids_are_cut_padded_and_unknown() -> None:
    ids = word_ids([["a", "x", "b", "a"], ["b"]], ["a", "b"], 3)
    assert ids.dtype == np.int32
    assert ids.tolist() == [[2, 1, 3], [3, 0, 0]]


def test_wordpieces(tokenizer: Path) -> None:
    ids, lengths = WordPieces(tokenizer).ids(["A hero returns.", "Heroes return .", ""], 6)
    assert lengths == [6, 7, 2]
    assert ids.tolist() == [[2, 4, 5, 1, 9, 3], [2, 5, 6, 7, 8, 3], [2, 3, 0, 0, 0, 0]]


def test_wordpieces_agree_with_transformers(tokenizer: Path) -> None:
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertTokenizer(str(tokenizer / "vocab.txt"))
    reference.save_pretrained(tokenizer / "saved")
    texts = ["A heroes return.", "hero, héro RETURN"]
    for folder in (tokenizer, tokenizer / "saved"):
        ids, _ = WordPieces(folder).ids(texts, 12)
        want = [reference(text)["input_ids"] for text in texts]
        assert [[i for i in row if i] for row in ids.tolist()] == want


@pytest.mark.parametrize("content", [None, ("tokenizer.json", "{"), ("vocab.txt", "a\nb\n")])
def test_other_tokenizers_are_refused(tmp_path: Path, content: tuple[str, str] | None) -> None:
    if content:
        (tmp_path / content[0]).write_text(content[1])
    with pytest.raises(UserError, match=str(tmp_path)):
        WordPieces(tmp_path)


def test_without_tokenizers(tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"miles-repro\[text\]"):
        WordPieces(tokenizer)
