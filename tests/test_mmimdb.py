"""MM-IMDb: words and labels, both raw forms -> prepared folder, and every kind of bad film."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support import settings

from miles_repro.data import mmimdb
from miles_repro.data.command import main
from miles_repro.data.mmimdb import GENRES
from miles_repro.data.mmimdb_raw import PARTS
from miles_repro.data.words import WordPieces, build_vocabulary, split_words, word_ids
from miles_repro.errors import UserError
from miles_repro.run import run

CONF = Path(__file__).resolve().parents[1] / "conf" / "dataset" / "mmimdb.yaml"
DEFAULTS = yaml.safe_load(CONF.read_text())["preparation"]

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


VOCAB = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "hero", "##es", "re", "##turn", "."]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder


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
    with pytest.raises(UserError, match=r"\.\[text\]"):
        WordPieces(tokenizer)


# ---- the raw form -----------------------------------------------------------------------------

COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
FILMS: dict[str, dict[str, Any]] = {
    f"{i:07d}": {
        "title": f"Film {i}",
        "genres": [GENRES[i], GENRES[i + 1], "News"][: 2 + (i == 4)],
        "plot": ["short", f"A much longer plot about word{'x' * i} and film number {i}"],
    }
    for i in range(1, 13)
}
SPLIT = {
    "train": ["0000007", *(f"{i:07d}" for i in range(1, 7))],
    "dev": ["0000009", "0000008"],
    "test": ["0000010", "0000012", "0000011"],
}


def part_of(imdb_id: str) -> str:
    return next(ours for theirs, ours in PARTS.items() if imdb_id in SPLIT[theirs])


def colour(imdb_id: str) -> tuple[int, int, int]:
    return COLOURS[int(imdb_id) % 3]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("mmimdb")
    (raw / "dataset").mkdir()
    for imdb_id, film in FILMS.items():
        (raw / "dataset" / f"{imdb_id}.json").write_text(json.dumps(film))
        Image.new("RGB", (20, 32), colour(imdb_id)).save(raw / "dataset" / f"{imdb_id}.jpeg")
    (raw / "split.json").write_text(json.dumps(SPLIT))
    return raw


@pytest.fixture
def raw(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "raw"))


def prepare(raw: Path, out: Path, **options: Any) -> dict[str, Any]:
    return mmimdb.prepare(
        raw, out, **{**DEFAULTS, "partial": True, "workers": 1, "size": 24, **options}
    )


@pytest.fixture(scope="module")
def prepared(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "mmimdb"
    prepare(original, out, length=16)
    return out


def manifest_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def test_genres() -> None:
    assert len(GENRES) == len(set(GENRES)) == 23


def test_arrays_line_up_with_the_films(prepared: Path) -> None:
    image, text, labels = (np.load(prepared / f"{m}.npy") for m in ("image", "text", "labels"))
    assert image.shape == (12, 3, 24, 24)
    assert image.dtype == np.uint8
    assert text.shape == (12, 16)
    assert text.dtype == np.int32
    assert labels.shape == (12, 23)
    assert labels.dtype == np.uint8
    words = ["", "?", *manifest_of(prepared)["parameters"]["vocabulary"].split(" ")]
    for row, (imdb_id, film) in enumerate(FILMS.items()):  # in the order of their ids
        assert np.abs(image[row].mean(axis=(1, 2)) - colour(imdb_id)).max() < 4
        assert {GENRES[c] for c in np.flatnonzero(labels[row])} == {*film["genres"]} - {"News"}
        got = [words[i] for i in text[row] if i]
        want = split_words(film["plot"][1])  # the longer of the two
        rare = part_of(imdb_id) != "train"
        assert got == [w if w in words else "?" for w in want]
        assert ("?" in got) == rare  # the vocabulary knows training plots only


def test_split_and_statistics(prepared: Path) -> None:
    ids = list(FILMS)
    with np.load(prepared / "splits.npz") as splits:
        for part, count in (("train", 7), ("val", 2), ("test", 3)):
            rows = splits[f"official.{part}"]
            assert len(rows) == count
            assert {part_of(ids[row]) for row in rows} == {part}
    with np.load(prepared / "stats.npz") as stats:
        assert set(stats) == {"official.image.mean", "official.image.std"}
        assert stats["official.image.mean"].shape == (3, 1, 1)
        np.testing.assert_allclose(stats["official.image.std"].ravel() / 255, mmimdb.IMAGENET[1])


def test_manifest_says_it_is_not_the_real_set(prepared: Path) -> None:
    notes = manifest_of(prepared)["report"]["notes"]
    assert any(n.startswith("NOT the real MM-IMDb: 7 / 2 / 3") for n in notes)
    assert any("beyond the 23" in n and "'News': 1" in n for n in notes)


def test_other_counts_are_refused(original: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"7 / 2 / 3 films.*15,552 / 2,608 / 7,799.*partial=true"):
        prepare(original, tmp_path / "mmimdb", partial=False)


def test_the_real_counts_need_no_permission(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmimdb, "SIZES", {"train": 7, "val": 2, "test": 3})
    notes = prepare(original, tmp_path / "mmimdb", partial=False)["report"]["notes"]
    assert not any("NOT" in note for note in notes)


def test_twice_the_same(original: Path, prepared: Path, tmp_path: Path) -> None:
    manifest = prepare(original, tmp_path / "mmimdb", length=16)
    assert manifest["files"] == manifest_of(prepared)["files"]
    assert manifest["fingerprint"] == manifest_of(prepared)["fingerprint"]


def test_long_plots_are_cut_and_counted(original: Path, prepared: Path, tmp_path: Path) -> None:
    manifest = prepare(original, tmp_path / "mmimdb", length=3)
    assert "12 plot(s) longer than 3 tokens cut" in manifest["report"]["notes"]
    text = np.load(tmp_path / "mmimdb" / "text.npy")
    assert np.array_equal(text, np.load(prepared / "text.npy")[:, :3])


def test_bert_tokens(original: Path, tokenizer: Path, tmp_path: Path) -> None:
    manifest = prepare(original, tmp_path / "mmimdb", tokenizer=str(tokenizer), length=8)
    text = np.load(tmp_path / "mmimdb" / "text.npy")
    assert (text[:, 0] == VOCAB.index("[CLS]")).all()
    assert (text[:, 1] == VOCAB.index("a")).all()
    assert manifest["parameters"]["vocabulary"] == ""


def test_text_encoders_read_what_was_prepared(prepared: Path) -> None:
    from miles_repro.encoders.text import Bow, Gru

    tokens = torch.from_numpy(np.load(prepared / "text.npy")).long()
    for encoder in (Bow(vocab_size=10, dim=6), Gru(vocab_size=100, dim=6)):
        assert encoder(tokens).shape == (12, 6)


VICTIM = "0000003"


def spoil(raw: Path, how: str) -> tuple[Path, str]:
    """Damage one film; returns the file to be named and a word of the reason expected."""
    path, poster = raw / "dataset" / f"{VICTIM}.json", raw / "dataset" / f"{VICTIM}.jpeg"
    film = FILMS[VICTIM]
    edits: dict[str, tuple[dict[str, Any] | list[Any], str]] = {
        "no plot key": ({"genres": film["genres"]}, "no key 'plot'"),
        "no genres key": ({"plot": film["plot"]}, "no key 'genres'"),
        "no plots": (film | {"plot": []}, "empty plot"),
        "blank plots": (film | {"plot": ["", " ..."]}, "empty plot"),
        "plot is text": (film | {"plot": "a plot"}, "'plot' is not a list"),
        "plot holds null": (film | {"plot": ["a", None]}, "'plot' is not a list"),
        "foreign genres": (film | {"genres": ["Adult"]}, "none of the 23 genres"),
        "not an object": ([1, 2], "not a json object"),
    }
    if how in edits:
        content, reason = edits[how]
        path.write_text(json.dumps(content))
        return path, reason
    if how == "json missing":
        path.unlink()
        return path, "missing"
    if how == "json cut":
        path.write_text(json.dumps(film)[:30])
        return path, "not readable as json"
    if how == "json not utf-8":
        path.write_bytes(b'{"plot": ["\xff"]}')
        return path, "not readable as json"
    if how == "poster missing":
        poster.unlink()
        return poster, "missing"
    poster.write_bytes(
        {"poster empty": b"", "poster cut": poster.read_bytes()[:400], "poster text": b"x" * 90}[
            how
        ]
    )
    return poster, "empty file" if how == "poster empty" else "not readable as a picture"


SPOILS = [
    *("no plot key", "no genres key", "no plots", "blank plots", "plot is text", "plot holds null"),
    *("foreign genres", "not an object", "json missing", "json cut", "json not utf-8"),
    *("poster missing", "poster empty", "poster cut", "poster text"),
]


@pytest.mark.parametrize("how", SPOILS)
def test_bad_films_are_named_and_left_out_when_allowed(raw: Path, tmp_path: Path, how: str) -> None:
    path, reason = spoil(raw, how)
    manifest = prepare(raw, tmp_path / "mmimdb")
    assert len(manifest["report"]["skipped"]) == 1
    entry = manifest["report"]["skipped"][0]
    assert entry["file"] == str(path)
    assert reason in entry["reason"]
    assert manifest["rows"] == 11
    image = np.load(tmp_path / "mmimdb" / "image.npy")
    rest = [imdb_id for imdb_id in FILMS if imdb_id != VICTIM]
    for row, imdb_id in enumerate(rest):  # rows did not slip
        assert np.abs(image[row].mean(axis=(1, 2)) - colour(imdb_id)).max() < 4


@pytest.mark.parametrize("how", SPOILS)
def test_bad_films_are_refused_otherwise(raw: Path, tmp_path: Path, how: str) -> None:
    path, reason = spoil(raw, how)
    with pytest.raises(UserError) as error:
        prepare(raw, tmp_path / "mmimdb", partial=False)
    assert str(path) in str(error.value)
    assert reason in str(error.value)
    assert "1 file(s) refused" in str(error.value)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_other_channel_counts_are_converted_and_listed(
    raw: Path, tmp_path: Path, mode: str
) -> None:
    path = raw / "dataset" / f"{VICTIM}.jpeg"
    grey = Image.new("RGB", (20, 32), (90, 90, 90))
    picture = grey.quantize(4) if mode == "P" else grey.convert(mode)
    picture.save(path, format="PNG" if mode in ("P", "RGBA") else "JPEG")
    notes = prepare(raw, tmp_path / "mmimdb")["report"]["notes"]
    assert f"1 poster(s) converted to RGB: {VICTIM}" in notes
    row = list(FILMS).index(VICTIM)
    got = np.load(tmp_path / "mmimdb" / "image.npy")[row]
    assert np.abs(got.astype(int) - 90).max() < 6


def test_films_without_a_part_are_counted(raw: Path, tmp_path: Path) -> None:
    (raw / "dataset" / "9999999.json").write_text("{}")
    notes = prepare(raw, tmp_path / "mmimdb")["report"]["notes"]
    assert any(note.startswith("1 film(s)") and "split.json" in note for note in notes)


@pytest.mark.parametrize(
    "content, reason",
    [
        ("{", "is not a split"),
        ('{"train": [], "dev": []}', "is not a split"),
        ('{"train": ["0000001"], "dev": ["0000001"], "test": []}', "0000001 more than once"),
        ('{"train": ["0000001"], "dev": ["0000002"], "test": []}', "no film for test"),
    ],
)
def test_bad_splits(raw: Path, tmp_path: Path, content: str, reason: str) -> None:
    (raw / "split.json").write_text(content)
    with pytest.raises(UserError, match=reason):
        prepare(raw, tmp_path / "mmimdb")


@pytest.mark.parametrize(
    "gone, reason", [("split.json", "neither split.json"), ("dataset", "no folder dataset")]
)
def test_missing_parts_of_the_raw_folder(raw: Path, tmp_path: Path, gone: str, reason: str) -> None:
    (raw / gone).rename(raw / "elsewhere")
    with pytest.raises(UserError, match=reason):
        prepare(raw, tmp_path / "mmimdb")


def test_senseless_options(original: Path, tmp_path: Path) -> None:
    for option in ({"size": 0}, {"length": 0}, {"vocab_size": 2}):
        with pytest.raises(UserError, match="must be"):
            prepare(original, tmp_path / "mmimdb", **option)


def test_command(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["dataset=mmimdb", f"raw={original}", f"out={tmp_path}", "size=16", "workers=1"]
    assert main(command) == 2
    assert "partial=true" in capsys.readouterr().err
    assert main([*command, "partial=true"]) == 0
    assert "NOT the real MM-IMDb" in capsys.readouterr().out
    assert main(["dataset=mmimdb", f"out={tmp_path}", "--verify"]) == 0
    assert main(["dataset=mmimdb", f"out={tmp_path / 'other'}"]) == 2


# ---- the HDF5 form ----------------------------------------------------------------------------


def split_table(bounds: dict[str, tuple[int, int]]) -> np.ndarray:
    """The attribute Fuel writes: one entry per part and source."""
    h5py = pytest.importorskip("h5py")
    dtype = np.dtype(
        [
            ("split", "S5"),
            ("source", "S9"),
            ("start", np.int64),
            ("stop", np.int64),
            ("indices", h5py.special_dtype(ref=h5py.Reference)),
            ("available", bool),
            ("comment", "S1"),
        ]
    )
    entries = [
        (part.encode(), source, start, stop, h5py.Reference(), True, b".")
        for part, (start, stop) in bounds.items()
        for source in (b"genres", b"images", b"sequences")
    ]
    return np.array(entries, dtype=dtype)


ORDER = [i for part in ("train", "dev", "test") for i in SPLIT[part]]
COLUMNS = GENRES[::-1]
SEQUENCES = [[5, 9, 0, 9], [9, 9, 5], [9, 7], [7, 9, 5], [9], [0, 9], [9, 5], *[[9, 11]] * 5]
BOUNDS = {"train": (0, 7), "dev": (7, 9), "test": (9, 12)}


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    """The published file's layout: BGR minus the mean colour, int32, rows in split order."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "multimodal_imdb.hdf5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", (12, 3, 256, 160), dtype="int32")
        sequences = file.create_dataset("sequences", (12,), dtype=h5py.vlen_dtype(np.int32))
        genres = file.create_dataset("genres", (12, 23), dtype="int32")
        file["imdb_ids"] = np.array(ORDER, dtype="S7")
        for row, imdb_id in enumerate(ORDER):
            bgr = np.array(colour(imdb_id)[::-1]) - [103.939, 116.779, 123.68]
            images[row] = np.broadcast_to(bgr[:, None, None], (3, 256, 160))
            sequences[row] = SEQUENCES[row]
            genres[row] = [int(g in FILMS[imdb_id]["genres"]) for g in COLUMNS]
        genres.attrs["target_names"] = json.dumps(COLUMNS)
        file.attrs["split"] = split_table(BOUNDS)
    return path


def test_hdf5_gives_the_same_images_labels_and_split(
    hdf5: Path, prepared: Path, tmp_path: Path
) -> None:
    manifest = prepare(hdf5.parent, tmp_path / "mmimdb", length=16)
    out = tmp_path / "mmimdb"
    assert np.array_equal(np.load(out / "labels.npy"), np.load(prepared / "labels.npy"))
    with np.load(out / "splits.npz") as mine, np.load(prepared / "splits.npz") as want:
        assert all(np.array_equal(mine[key], want[key]) for key in want)
    image = np.load(out / "image.npy")
    for row, imdb_id in enumerate(FILMS):
        assert np.abs(image[row].mean(axis=(1, 2)) - colour(imdb_id)).max() <= 1
    assert manifest["parameters"]["form"] == "hdf5"


def test_hdf5_words_are_ranked_on_training_rows(hdf5: Path, tmp_path: Path) -> None:
    manifest = prepare(hdf5.parent, tmp_path / "mmimdb", length=4, vocab_size=4)
    assert manifest["parameters"]["vocabulary"] == "w9 w5"
    text = np.load(tmp_path / "mmimdb" / "text.npy")
    row = sorted(ORDER).index(ORDER[0])
    assert text[row].tolist() == [3, 2, 1, 2]
    assert text[sorted(ORDER).index(ORDER[2])].tolist() == [2, 1, 0, 0]


def edit(path: Path) -> Any:
    import h5py

    return h5py.File(path, "r+")


def test_hdf5_without_own_split_or_names(
    hdf5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mmimdb, "SIZES", {"train": 7, "val": 2, "test": 3})
    with edit(hdf5) as file:
        del file.attrs["split"]
        del file["genres"].attrs["target_names"]
        file["genres"][:] = file["genres"][:][:, ::-1]
    manifest = prepare(hdf5.parent, tmp_path / "mmimdb", partial=False)
    assert len(manifest["report"]["notes"]) >= 2
    with np.load(tmp_path / "mmimdb" / "splits.npz") as splits:
        rows = splits["official.val"]
    assert sorted(sorted(ORDER)[row] for row in rows) == sorted(SPLIT["dev"])
    labels = np.load(tmp_path / "mmimdb" / "labels.npy")
    assert labels[0].nonzero()[0].tolist() == [GENRES.index(g) for g in FILMS["0000001"]["genres"]]


def test_hdf5_in_plain_colours(hdf5: Path, tmp_path: Path) -> None:
    with edit(hdf5) as file:
        for row, imdb_id in enumerate(ORDER):
            plain = np.array(colour(imdb_id))[:, None, None]
            file["images"][row] = np.broadcast_to(plain, (3, 256, 160))
    prepare(hdf5.parent, tmp_path / "mmimdb")
    image = np.load(tmp_path / "mmimdb" / "image.npy")
    for row, imdb_id in enumerate(FILMS):
        assert np.abs(image[row].mean(axis=(1, 2)) - colour(imdb_id)).max() <= 1


@pytest.mark.parametrize("how", ["plot", "genres"])
def test_hdf5_bad_films(hdf5: Path, tmp_path: Path, how: str) -> None:
    with edit(hdf5) as file:
        if how == "plot":
            file["sequences"][2] = np.zeros(0, np.int32)
        else:
            file["genres"][2] = 0
    manifest = prepare(hdf5.parent, tmp_path / "mmimdb")
    assert manifest["report"]["skipped"] == [
        {
            "file": f"{hdf5}:{ORDER[2]}",
            "reason": "empty plot" if how == "plot" else "none of the 23 genres",
        }
    ]


@pytest.mark.parametrize("how", ["rubbish", "dataset", "channels", "names", "split", "bert"])
def test_other_hdf5_files_are_refused(
    hdf5: Path, tmp_path: Path, tokenizer: Path, how: str
) -> None:
    options = {"tokenizer": str(tokenizer)} if how == "bert" else {}
    if how == "rubbish":
        hdf5.write_bytes(b"x" * 2000)
    elif how != "bert":
        with edit(hdf5) as file:
            if how == "dataset":
                del file["sequences"]
            elif how == "channels":
                del file["images"]
                file["images"] = np.zeros((12, 1, 4, 4), np.int32)
            elif how == "names":
                file["genres"].attrs["target_names"] = json.dumps(["Adult", *GENRES[1:]])
            else:
                file.attrs["split"] = split_table({"train": (0, 7), "dev": (7, 9)})
    reason = {
        "rubbish": "cannot be read",
        "dataset": "no dataset sequences",
        "channels": r"images are \(12, 1, 4, 4\)",
        "names": "Adult, Drama",
        "split": "no usable split",
        "bert": "raw form",
    }[how]
    with pytest.raises(UserError, match=reason) as error:
        prepare(hdf5.parent, tmp_path / "mmimdb", **options)
    assert str(hdf5) in str(error.value)


# ---- training ---------------------------------------------------------------------------------


def train(data: Path, runs: Path, encoders: str, **values: Any) -> dict[str, Any]:
    budget = ("budget=smoke", "budget.data_fraction=1.0", f"budget.encoders={encoders}")
    values = {"epochs": 2, "batch_size": 4, **values}
    summary = run(settings(data, runs, *budget, dataset="mmimdb", **values), "test").summary
    assert summary is not None
    assert (summary["status"], summary["metric"]) == ("done", "f1_micro")
    assert np.isfinite([part["loss"] for part in summary["test"].values()]).all()
    return summary


@pytest.mark.parametrize("encoders", ["small", "gru"])
def test_training_on_words(prepared: Path, tmp_path: Path, encoders: str) -> None:
    summary = train(prepared.parent, tmp_path, encoders)
    assert set(summary["test"]) == {"fused", "text", "image"}
    assert set(summary["noise"]) == {"image"}  # token ids take no noise


@pytest.mark.parametrize("finetune", [True, False])
def test_training_on_wordpieces(
    original: Path, tokenizer: Path, tmp_path: Path, finetune: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    config = transformers.BertConfig(vocab_size=len(VOCAB), num_attention_heads=2, **sizes)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    shutil.copy(tokenizer / "vocab.txt", tmp_path / "bert")
    bert = tmp_path / "bert"
    prepare(original, tmp_path / "data" / "mmimdb", tokenizer=str(bert), length=8, size=32)
    paper = "dataset.encoders.paper"
    values = {f"{paper}.text.finetune": finetune, f"{paper}.image.depth": 10}
    values["dataset.bert_folder"] = str(bert)
    train(tmp_path / "data", tmp_path / "runs", "paper", **values)


def test_bert_on_words_is_refused(prepared: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(vocab_size=10, num_attention_heads=2, hidden_size=8)
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    # [CLS] is no id a plot of the fixture begins with
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(["[PAD]", *"abcdefgh", "[CLS]"]))
    with pytest.raises(UserError, match="tokenizer="):
        train(
            *(prepared.parent, tmp_path / "runs", "paper"),
            **{"dataset.bert_folder": str(tmp_path / "bert")},
        )


def test_without_a_bert_folder(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no BERT model at"):
        train(prepared.parent, tmp_path, "paper")


# ---- the stand-in -----------------------------------------------------------------------------


@pytest.mark.slow
def test_stand_in_killed_midway_ends_with_the_same_bytes(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "mmimdb_like"
    script = Path(__file__).resolve().parents[1] / "scripts" / "prepare_data.py"
    command = [sys.executable, str(script), "dataset=mmimdb", f"raw={raw}", "partial=true"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, f"out={whole}"], check=True, stderr=subprocess.PIPE)
    process = subprocess.Popen(
        [*command, f"out={killed}"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    log = killed / "mmimdb.partial" / "image.progress"
    while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < 8):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = len(log.read_text().splitlines()) - 1
    assert 0 < before < 88, "the kill came too early or too late to show anything"
    again = subprocess.run(
        [*command, f"out={killed}"], check=True, stderr=subprocess.PIPE, text=True
    )
    assert "were done before" in again.stderr
    one, other = manifest_of(whole / "mmimdb"), manifest_of(killed / "mmimdb")
    assert one["files"] == other["files"]
    assert one["fingerprint"] == other["fingerprint"]
    counts = one["schemes"]["official"]
    assert [counts[p] for p in ("train", "val", "test")] == [1668, 292, 854]
    assert sum(n > 0 for n in counts["per_class"]["train"]) == 21
