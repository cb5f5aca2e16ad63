"""Encoders: layouts against their definitions, gradients, local weights, text edge cases."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from miles_repro.encoders.resnet import ResNetEncoder, resnet
from miles_repro.encoders.text import Bert, Bow, Gru
from miles_repro.errors import UserError

# depth: (feature width, convolutions on the longest path incl. stem)
RESNETS = {6: (128, 5), 10: (512, 9), 18: (512, 17), 50: (2048, 49)}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def basic_resnet_size(blocks: list[int], in_channels: int) -> int:
    """Parameters of a BasicBlock ResNet without classifier, counted from its definition."""
    total = in_channels * 64 * 49 + 2 * 64
    width_in = 64
    for stage, n in enumerate(blocks):
        width = 64 * 2**stage
        for i in range(n):
            total += 9 * width_in * width + 9 * width * width + 4 * width
            if i == 0 and width_in != width:  # 1x1 shortcut with its BatchNorm
                total += width_in * width + 2 * width
            width_in = width
    return total


def assert_gradient_everywhere(module: nn.Module, out: Tensor) -> None:
    out.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("depth", RESNETS)
@pytest.mark.parametrize("channels", [1, 3])
def test_resnet_shape_and_gradient(depth: int, channels: int) -> None:
    torch.manual_seed(0)
    encoder = resnet(depth=depth, in_channels=channels)
    out = encoder(torch.randn(3, channels, 32, 40))
    assert out.shape == (3, encoder.dim) == (3, RESNETS[depth][0])
    assert_gradient_everywhere(encoder, out)


@pytest.mark.parametrize("depth", RESNETS)
def test_depth_counts_weighted_layers(depth: int) -> None:
    main_path = [
        name
        for name, module in resnet(depth=depth).named_modules()
        if isinstance(module, nn.Conv2d) and "downsample" not in name
    ]
    assert len(main_path) == RESNETS[depth][1] == depth - 1  # + the linear classifier


@pytest.mark.parametrize("depth, blocks", [(6, [1, 1]), (10, [1, 1, 1, 1]), (18, [2, 2, 2, 2])])
@pytest.mark.parametrize("channels", [1, 3])
def test_basic_resnet_sizes(depth: int, blocks: list[int], channels: int) -> None:
    assert count(resnet(depth=depth, in_channels=channels)) == basic_resnet_size(blocks, channels)


@pytest.mark.parametrize("depth, blocks, dim", [(10, [2, 2], 128), (6, [2], 64), (10, [1, 3], 128)])
def test_other_layouts_of_a_depth(depth: int, blocks: list[int], dim: int) -> None:
    encoder = resnet(depth, 1, blocks=blocks)
    assert count(encoder) == basic_resnet_size(blocks, 1)
    assert encoder(torch.zeros(2, 1, 28, 28)).shape == (2, dim)
    assert encoder.dim == dim


@pytest.mark.parametrize("blocks", [[1, 1], [2, 2, 2], [4, 0], [1, 1, 1, 1, 0]])
def test_blocks_that_do_not_make_the_depth_are_refused(blocks: list[int]) -> None:
    with pytest.raises(UserError, match="blocks="):
        resnet(10, blocks=blocks)


def test_published_sizes() -> None:
    # torchvision documents 11,689,512 and 25,557,032 parameters, with 1,000-way classifiers.
    assert count(resnet(depth=18)) == 11_689_512 - 512 * 1000 - 1000
    assert count(resnet(depth=50)) == 25_557_032 - 2048 * 1000 - 1000


def test_small_images_survive_the_strides() -> None:
    assert resnet(depth=10, in_channels=1).eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 512)


@pytest.mark.parametrize("depth", [0, 7, 34])
def test_unknown_depth_is_named(depth: int) -> None:
    with pytest.raises(UserError, match=f"depth {depth}.*6, 10, 18, 50"):
        resnet(depth=depth)


def test_no_channels() -> None:
    with pytest.raises(UserError, match="channel"):
        resnet(depth=6, in_channels=0)


def saved_resnet(folder: Path, depth: int = 6) -> tuple[Path, ResNetEncoder]:
    torch.manual_seed(1)
    source = resnet(depth=depth).eval()
    state = source.state_dict() | {"fc.weight": torch.ones(5, source.dim), "fc.bias": torch.ones(5)}
    path = folder / "weights.pth"
    torch.save(state, path)
    return path, source


def test_weights_are_loaded_and_the_classifier_ignored(tmp_path: Path) -> None:
    path, source = saved_resnet(tmp_path)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(resnet(6, weights=str(path)).eval()(x), source(x), rtol=0, atol=0)


def test_colour_weights_see_a_grey_image_as_its_grey_copy(tmp_path: Path) -> None:
    path, source = saved_resnet(tmp_path)
    grey = torch.randn(2, 1, 32, 32)
    encoder = resnet(6, in_channels=1, weights=str(path)).eval()
    torch.testing.assert_close(encoder(grey), source(grey.expand(-1, 3, -1, -1)))


def test_weights_of_another_layout_are_refused(tmp_path: Path) -> None:
    path, _ = saved_resnet(tmp_path)
    with pytest.raises(UserError, match="ResNet-10"):
        resnet(10, weights=str(path))
    with pytest.raises(UserError, match="2 input channels"):
        resnet(6, in_channels=2, weights=str(path))


class Payload:
    """Something a weights file has no business holding."""


@pytest.mark.parametrize("content", ["missing", "text", "object", "list", "nested", "cut"])
def test_unusable_weight_files_are_user_errors(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.pth"
    if content == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif content == "cut":
        torch.save({"conv1.weight": torch.zeros(100, 100)}, path)
        path.write_bytes(path.read_bytes()[:500])
    elif content != "missing":
        objects: dict[str, Any] = {"object": Payload(), "list": [1], "nested": {"state": {}}}
        torch.save(objects[content], path)
    with pytest.raises(UserError, match=r"w\.pth"):
        resnet(6, weights=str(path))


def test_importing_the_small_and_text_encoders_loads_no_heavy_package() -> None:
    code = (
        "import sys, miles_repro.encoders.text, miles_repro.encoders.small;"
        "sys.exit(any(m in sys.modules for m in ('torchvision', 'transformers', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


TEXT = {
    "bow": lambda: Bow(vocab_size=50, embed_dim=6, dim=8),
    "gru": lambda: Gru(vocab_size=50, embed_dim=6, dim=8),
}


@pytest.fixture(params=TEXT)
def text_encoder(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return TEXT[request.param]()


TOKENS = torch.tensor([[3, 4, 5, 0, 0], [7, 8, 9, 10, 11], [12, 0, 0, 0, 0]])


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
    with pytest.raises(UserError, match=r"\.\[text\]"):
        Bert(str(bert_folder))
