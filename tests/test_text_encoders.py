"""Text encoders: gradients, padding, edge cases, local BERT folders."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from encoder_kit import assert_gradient_everywhere
from torch import nn

from miles_repro.encoders.text import Bert, Bow, Gru
from miles_repro.errors import UserError

TEXT = {
    "bow": lambda: Bow(vocab_size=50, embed_dim=6, dim=8),
    "gru": lambda: Gru(vocab_size=50, embed_dim=6, dim=8),
}


@pytest.fixture(params=TEXT)
def text_encoder(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return TEXT[request.param]()


TOKENS = torch.tensor([[3, 4, 5, 0, 0], [7, 8, 9, 10, 11], [12, 0, 0, 0, 0]])


VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghij"]


CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT with random weights, saved the way a user would save a real one."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(VOCAB),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder


WORDPIECES = torch.tensor([[CLS, 5, 6, SEP, 0, 0], [CLS, 7, 8, 9, 10, SEP]])


def test_text_shapes_and_gradient(text_encoder: nn.Module) -> None:
    out = text_encoder(TOKENS)
    assert out.shape == (3, text_encoder.dim)
    assert_gradient_everywhere(text_encoder, out)
    embedding = text_encoder.embedding
    assert embedding.weight.grad[0].abs().sum() == 0  # padding never learns
    assert (embedding.weight.grad.abs().sum(dim=1) > 0).nonzero().flatten().tolist() == [
        t for t in range(1, 13) if t in TOKENS
    ]


def test_padding_moves_nothing(text_encoder: nn.Module) -> None:
    alone = text_encoder(TOKENS[:1, :3])
    padded = text_encoder(torch.cat([TOKENS, torch.zeros(3, 4, dtype=torch.long)], dim=1))[:1]
    torch.testing.assert_close(alone, padded)


def test_empty_rows_are_constant_and_finite(text_encoder: nn.Module) -> None:
    out = text_encoder(torch.tensor([[0, 0, 0], [5, 6, 7], [0, 0, 0]]))
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out[0], out[2])


def test_words_beyond_the_vocabulary_are_unknown(text_encoder: nn.Module) -> None:
    rare, unknown = torch.tensor([[3, 50, 999]]), torch.tensor([[3, 1, 1]])
    torch.testing.assert_close(text_encoder(rare), text_encoder(unknown))
    assert not torch.allclose(text_encoder(unknown), text_encoder(torch.tensor([[3, 49, 49]])))


def test_order_matters_to_the_gru_only() -> None:
    torch.manual_seed(0)
    sentence, shuffled = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[6, 3, 5, 4]])
    bow, gru = TEXT["bow"](), TEXT["gru"]()
    torch.testing.assert_close(bow(sentence), bow(shuffled))
    assert not torch.allclose(gru(sentence), gru(shuffled))


def test_the_gru_reads_both_ways() -> None:
    torch.manual_seed(0)
    gru = TEXT["gru"]()
    a, b = gru(torch.tensor([[3, 4, 5, 6]])), gru(torch.tensor([[9, 4, 5, 6]]))
    assert not torch.allclose(a[:, :4], b[:, :4])
    assert not torch.allclose(a[:, 4:], b[:, 4:])


def test_odd_gru_width() -> None:
    with pytest.raises(UserError, match="even"):
        Gru(vocab_size=5, dim=7)


def test_bert_finetunes(bert_folder: Path) -> None:
    encoder = Bert(str(bert_folder))
    out = encoder(WORDPIECES)
    assert out.shape == (2, encoder.dim) == (2, 16)
    (out * torch.randn_like(out)).sum().backward()
    assert all(p.grad is not None and p.requires_grad for p in encoder.parameters())


def test_bert_equals_the_saved_model_and_ignores_padding(bert_folder: Path) -> None:
    from transformers import BertModel

    encoder = Bert(str(bert_folder)).eval()
    want = BertModel.from_pretrained(bert_folder).eval()(WORDPIECES[:1, :4]).last_hidden_state
    torch.testing.assert_close(encoder(WORDPIECES)[:1], want[:, 0])


def test_frozen_bert_stays_put(bert_folder: Path) -> None:
    encoder = Bert(str(bert_folder), finetune=False).train()
    assert not encoder.model.training  # or dropout would move its features
    assert not any(p.requires_grad for p in encoder.parameters())
    out = encoder(WORDPIECES)
    assert not out.requires_grad
    torch.testing.assert_close(out, encoder(WORDPIECES), rtol=0, atol=0)
    nn.Linear(encoder.dim, 3)(out).sum().backward()  # what follows still trains


def test_bert_refuses_word_ids(bert_folder: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer="):
        Bert(str(bert_folder))(torch.tensor([[5, 6, 7]]))


def test_bert_reads_tokenizer_json(bert_folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((bert_folder / name).read_bytes())
    vocabulary = {word: i for i, word in enumerate(VOCAB)}
    Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")).save(
        str(tmp_path / "tokenizer.json")
    )
    assert Bert(str(tmp_path)).first_token == CLS


@pytest.mark.parametrize("broken", ["folder", "tokenizer", "weights", "pad", "config"])
def test_incomplete_bert_folders_are_user_errors(
    bert_folder: Path, tmp_path: Path, broken: str
) -> None:
    for file in bert_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    target = tmp_path
    if broken == "folder":
        target = tmp_path / "nothing"
    elif broken == "tokenizer":
        (tmp_path / "vocab.txt").unlink()
    elif broken == "weights":
        (tmp_path / "model.safetensors").unlink()
    elif broken == "pad":
        (tmp_path / "vocab.txt").write_text("[CLS]\n[PAD]\n")
    elif broken == "config":
        (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=str(target.name)):
        Bert(str(target))


def test_bert_without_transformers(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"miles-repro\[text\]"):
        Bert(str(bert_folder))
