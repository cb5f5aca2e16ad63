"""Text encoders: bag of words, GRU and BERT, all over padded token ids.

Input of each is an int64 tensor (B, L) in which 0 pads on the right; output is (B, dim). The
words themselves are listed in the prepared folder's manifest, most frequent first, so an encoder
may know fewer words than were prepared: ids from its ``vocab_size`` on count as the unknown word.
A row of nothing but padding is legal and encodes to a constant.

The paper (sec. IV-B) uses a pretrained BERT-base for MM-IMDb. ``Bert`` reads one from a folder
on disk; ``Bow`` and ``Gru`` need no files and no further packages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from miles_repro.errors import UserError

PAD, UNKNOWN = 0, 1
EMBEDDING_STD = 0.1
"""Of the initial word vectors; torch's 1.0 buries the few words of a small corpus in noise."""


class Bow(nn.Module):
    """Mean of word vectors, layer norm, one hidden ReLU layer: token ids (B, L) -> (B, dim).

    The norm takes out that a mean of many vectors is shorter than one of few.
    """

    def __init__(self, vocab_size: int, embed_dim: int = 128, dim: int = 128) -> None:
        super().__init__()
        self.dim, self.vocab_size = dim, vocab_size
        self.embedding = nn.EmbeddingBag(vocab_size, embed_dim, mode="mean", padding_idx=PAD)
        nn.init.normal_(self.embedding.weight[1:], std=EMBEDDING_STD)
        self.hidden = nn.Sequential(nn.LayerNorm(embed_dim), nn.Linear(embed_dim, dim), nn.ReLU())

    def forward(self, tokens: Tensor) -> Tensor:
        return self.hidden(self.embedding(_known(tokens, self.vocab_size)))


class Gru(nn.Module):
    """Bidirectional GRU over word embeddings: token ids (B, L) -> (B, dim).

    Sequences are packed, so padding takes no step and a row's feature does not depend on the
    length of its neighbours. The feature is the mean of the states of both directions, joined.
    """

    def __init__(self, vocab_size: int, embed_dim: int = 128, dim: int = 128) -> None:
        super().__init__()
        if dim % 2:
            raise UserError(f"a bidirectional GRU needs an even dim, got {dim}")
        self.dim, self.vocab_size = dim, vocab_size
        self.embedding = nn.Embedding(vocab_size, embed_dim, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight[1:], std=EMBEDDING_STD)
        self.gru = nn.GRU(embed_dim, dim // 2, batch_first=True, bidirectional=True)

    def forward(self, tokens: Tensor) -> Tensor:
        # An all-padding row keeps one step: packing refuses length 0.
        lengths = (tokens != PAD).sum(dim=1).clamp(min=1)
        embedded = self.embedding(_known(tokens, self.vocab_size))
        packed = pack_padded_sequence(
            embedded, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        states, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        return states.sum(dim=1) / lengths[:, None]


class Bert(nn.Module):
    """A pretrained transformer read from a local folder: WordPiece ids (B, L) -> (B, dim).

    The feature is the last hidden state of the first token ([CLS]).

    Args:
        folder: a folder as written by ``save_pretrained``: config.json, the weights and the
            tokenizer (tokenizer.json or vocab.txt). Nothing is downloaded.
        finetune: train the transformer's weights; False keeps them fixed, and in evaluation
            mode (no dropout), while only what follows is trained.

    Raises:
        UserError: no such folder, no model in it, the optional package is missing, or the
            prepared text holds word ids instead of this tokenizer's.
    """

    def __init__(self, folder: str, finetune: bool = True) -> None:
        super().__init__()
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise UserError(
                f"no BERT model at '{folder}' (config.json expected): save one there with "
                "transformers' save_pretrained and give that folder as the encoder's `folder`, "
                "or choose the bow or gru text encoder"
            )
        self.finetune = finetune
        self.first_token = _cls_token(path)
        self.model, self.dim = _load_transformer(path)
        self.model.requires_grad_(finetune)
        self.train()
        self._checked = False

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not self.finetune:
            self.model.eval()
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        self._check(tokens)
        with torch.set_grad_enabled(self.finetune and torch.is_grad_enabled()):
            out = self.model(input_ids=tokens, attention_mask=(tokens != PAD).long())
        return out.last_hidden_state[:, 0]

    def _check(self, tokens: Tensor) -> None:
        # Once only: reading a value back would stall a GPU at every batch.
        if not self._checked and bool((tokens[:, 0] != self.first_token).any()):
            raise UserError(
                "the prepared text does not start with BERT's [CLS] token: it holds word ids; "
                "prepare the data set again with tokenizer=<the BERT folder>"
            )
        self._checked = True


def _known(tokens: Tensor, vocab_size: int) -> Tensor:
    return tokens.where(tokens < vocab_size, UNKNOWN)


def _load_transformer(path: Path) -> tuple[nn.Module, int]:
    try:
        from transformers import AutoModel
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise UserError(
            "the bert text encoder needs the package transformers: pip install 'miles-repro[text]'"
        ) from error
    disable_progress_bar()  # it would run through the lines of the epochs
    try:
        model = AutoModel.from_pretrained(str(path), local_files_only=True).float()
    except (OSError, ValueError) as error:
        raise UserError(f"no transformer could be read from {path}: {error}") from error
    # The pooler sits behind the hidden states used here; kept, it would never see a gradient.
    model.pooler = None
    return model, int(model.config.hidden_size)


def _cls_token(path: Path) -> int:
    """Id of [CLS] in the folder's tokenizer.json or vocab.txt."""
    if (path / "tokenizer.json").is_file():
        spec = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = dict(spec["model"]["vocab"])
        vocabulary |= {token["content"]: token["id"] for token in spec.get("added_tokens", [])}
    elif (path / "vocab.txt").is_file():
        lines = (path / "vocab.txt").read_text(encoding="utf-8").splitlines()
        vocabulary = {word: i for i, word in enumerate(lines)}
    else:
        raise UserError(f"no tokenizer in {path}: tokenizer.json or vocab.txt expected")
    if vocabulary.get("[PAD]") != PAD or "[CLS]" not in vocabulary:
        raise UserError(f"the tokenizer in {path} is not BERT's: [PAD] must be id 0, [CLS] known")
    return int(vocabulary["[CLS]"])
