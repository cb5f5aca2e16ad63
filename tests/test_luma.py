"""LUMA from its raw tables: pairs agree, sides share nothing, bad files are named, no pickle."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from miles_repro.data import luma
from miles_repro.data.command import prepare_dataset
from miles_repro.data.luma_raw import read_tables
from miles_repro.data.manifest import verify
from miles_repro.errors import UserError

NAMES = ("man", "boy", "house")
SMALL = {
    "classes": ",".join(NAMES),
    "train": "12",
    "val": "6",
    "test": "6",
    "workers": "1",
    "n_mels": "8",
    "frames": "12",
    "image_size": "48",
}


def prepare(raw: Path, data: Path, **options: str) -> dict[str, Any]:
    manifest, _ = prepare_dataset("luma", raw, data, SMALL | options)
    verify(data / "luma")
    return manifest


def load(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    folder = data / "luma"
    with np.load(folder / "splits.npz") as splits:
        parts = {name.partition(".")[2]: splits[name] for name in splits.files}
    return (*(np.load(folder / f"{m}.npy") for m in ("audio", "image", "labels")), parts)


def write_wav(path: Path, name: str, number: int) -> None:
    """A tone whose pitch tells the class and whose loudness tells the recording."""
    pitch = 500 * 3 ** NAMES.index(name) if name in NAMES else 3000
    tone = np.sin(2 * np.pi * pitch * np.arange(1600) / 16_000)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone * (number + 1) / 64, 16_000)


def pictures(labels: list[str]) -> np.ndarray:
    """Flat images: red tells the class, green the image."""
    images = np.zeros((len(labels), 32, 32, 3), np.uint8)
    known = (*NAMES, "television")
    images[..., 0] = np.array([known.index(name) for name in labels])[:, None, None]
    images[..., 1] = np.arange(len(labels))[:, None, None]
    return images


def write_tables(raw: Path, suffix: str, each: int, first: int = 0) -> None:
    """``each`` items of each class and one of a class that is not wanted."""
    names = {"": "audio_data_unprocessed.csv"}.get(suffix, f"audio/datalist{suffix}.csv")
    labels = [name for name in NAMES for _ in range(each)] + ["television"]
    rows = [(f"cv_audio/{first + i}.wav", name) for i, name in enumerate(labels)]
    for at, (path, name) in enumerate(rows):
        write_wav(raw / "audio" / path, name, first + at)
    with (raw / names).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "path", "label", "class"])
        table.writerows([i, path, name, 0] for i, (path, name) in enumerate(rows))
    image = {"": "image_data_unprocessed.npz"}.get(suffix, f"image_data{suffix}.npz")
    np.savez(raw / image, image=pictures(labels), label=np.array(labels))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """The unprocessed dump, 10 items a class."""
    folder = tmp_path / "raw"
    write_tables(folder, "", each=10)
    return folder


def recordings(audio: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which recording an audio row is, by its class and loudness."""
    power = np.exp(audio[:, 0].astype(np.float64)).sum(axis=(1, 2))
    return 1e6 * labels + np.sqrt(power)


def test_pairs_agree_and_every_item_is_used_once(raw: Path, tmp_path: Path) -> None:
    manifest = prepare(raw, tmp_path / "data")
    audio, image, labels, splits = load(tmp_path / "data")
    assert (audio.shape, audio.dtype) == ((24, 1, 8, 12), np.float16)
    assert (image.shape, image.dtype) == ((24, 3, 48, 48), np.uint8)
    assert (image[:, 0, 0, 0] == labels).all()
    loudest = audio[:, 0].astype(float).mean(axis=2).argmax(axis=1)
    assert len({tuple(pair) for pair in zip(loudest, labels, strict=True)}) == 3  # pitch = class
    assert len(np.unique(image[:, 1, 0, 0])) == 24
    assert len(np.unique(recordings(audio, labels))) == 24
    counts = manifest["schemes"]["paper"]
    assert counts["per_class"] == {"train": [4] * 3, "val": [2] * 3, "test": [2] * 3}
    assert sorted(np.concatenate(list(splits.values()))) == list(range(24))
    assert (np.diff(labels[splits["train"]]) < 0).any()
    assert manifest["classes"] == list(NAMES)
    assert manifest["report"]["stand_in"]
    assert any(n.startswith("not the paper's protocol") for n in manifest["report"]["notes"])


def test_images_are_normalised_as_lumas_baseline_does(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "data")
    with np.load(tmp_path / "data" / "luma" / "stats.npz") as stats:
        np.testing.assert_allclose(stats["paper.image.mean"][:, 0, 0] / 255, [0.51, 0.49, 0.44])
        np.testing.assert_allclose(stats["paper.image.std"][:, 0, 0] / 255, [0.27, 0.26, 0.28])
        audio = np.load(tmp_path / "data" / "luma" / "audio.npy").astype(np.float64)
        train = np.load(tmp_path / "data" / "luma" / "splits.npz")["paper.train"]
        np.testing.assert_allclose(stats["paper.audio.mean"].item(), audio[train].mean(), rtol=1e-5)


def test_short_clips_end_in_silence_and_the_logarithm_can_go(raw: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "data", log_mel="false")
    audio = load(tmp_path / "data")[0]
    assert audio.dtype == np.float32
    assert (audio[:, :, :, :9] > 0).any(axis=(1, 2, 3)).all()  # 1600 samples are 9 frames
    assert (audio[:, :, :, 9:] == 0).all()
    prepare(raw, tmp_path / "log")
    quiet = load(tmp_path / "log")[0][:, :, :, 9:]
    assert (quiet == np.float16(np.log(luma.LOG_FLOOR))).all()


def test_preparing_twice_with_other_processes_is_the_same(raw: Path, tmp_path: Path) -> None:
    first = prepare(raw, tmp_path / "a")
    assert first == prepare(raw, tmp_path / "b", workers="2")
    assert first["fingerprint"] != prepare(raw, tmp_path / "c", seed="1")["fingerprint"]


def test_a_bad_recording_is_reported_and_another_takes_its_place(raw: Path, tmp_path: Path) -> None:
    audio = raw / "audio" / "cv_audio"
    (audio / "0.wav").unlink()
    (audio / "10.wav").write_bytes((audio / "10.wav").read_bytes()[:-500])
    manifest = prepare(raw, tmp_path / "data", train="15", val="6", test="6")
    reasons = {Path(e["file"]).name: e["reason"] for e in manifest["report"]["skipped"]}
    assert reasons == {"0.wav": "missing", "10.wav": "truncated: 500 bytes of audio are missing"}
    assert manifest["schemes"]["paper"]["per_class"]["train"] == [5] * 3
    with pytest.raises(
        UserError, match="2 of 3 classes have too few readable recordings: man has 9"
    ):
        prepare(raw, tmp_path / "more", train="18", val="6", test="6")


def test_too_few_items_say_what_is_possible(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"3 of 3 classes have too few recordings: man has 10, 12 are.*reuse=true"
    ):
        prepare(raw, tmp_path / "data", train="24")
    with pytest.raises(UserError, match="22 classes have too few recordings: woman has 0"):
        prepare(raw, tmp_path / "data", classes="", train="44", val="22", test="22", reuse="true")
    with pytest.raises(UserError, match="at least one pair of each of 3 classes"):
        prepare(raw, tmp_path / "data", val="2")


def test_reuse_repeats_items_inside_their_part_only(raw: Path, tmp_path: Path) -> None:
    manifest = prepare(raw, tmp_path / "data", train="60", val="15", test="15", reuse="true")
    audio, image, labels, splits = load(tmp_path / "data")
    assert manifest["rows"] == 90
    for identity in (recordings(audio, labels), image[:, 1, 0, 0]):
        sides = [set(identity[splits[part]]) for part in ("train", "val", "test")]
        assert not sides[0] & sides[1]
        assert not sides[0] & sides[2]
        assert not sides[1] & sides[2]
        for part in splits.values():
            for label in range(3):
                uses = Counter(identity[part[labels[part] == label]]).values()
                assert max(uses) - min(uses) <= 1


def test_a_test_side_of_their_own_stays_the_test_side(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_tables(raw, "_train", each=8)
    write_tables(raw, "_test", each=4, first=100)
    manifest = prepare(raw, tmp_path / "data")
    assert list(manifest["schemes"]) == ["given"]
    audio, _, labels, splits = load(tmp_path / "data")
    heard = recordings(audio, labels)
    for label in range(3):  # the recordings of the test side are the louder ones
        train, val, test = (heard[rows[labels[rows] == label]] for rows in splits.values())
        assert test.min() > max(train.max(), val.max())
    with pytest.raises(UserError, match="man has 4 on the test side, 5 are needed"):
        prepare(raw, tmp_path / "more", test="15")


def write_pickle(raw: Path, odd: bool = False) -> Path:
    with np.load(raw / "image_data_unprocessed.npz") as data:
        table = pd.DataFrame({"image": list(data["image"]), "label": data["label"]})
    if odd:
        table.at[0, "image"] = np.zeros((32, 32, 4), np.uint8)
        table.at[1, "image"] = np.zeros((32, 32), np.uint8)
    (raw / "image_data_unprocessed.npz").unlink()
    table.to_pickle(raw / "image_data_unprocessed.pickle")
    return raw / "image_data_unprocessed.pickle"


def test_a_pickle_needs_an_explicit_permission(raw: Path, tmp_path: Path) -> None:
    before = prepare(raw, tmp_path / "npz")
    pickle = write_pickle(raw)
    with pytest.raises(UserError, match=r"runs any code inside it.*allow_pickle=true") as refusal:
        prepare(raw, tmp_path / "data")
    assert prepare(raw, tmp_path / "data", allow_pickle="true")["files"] == before["files"]
    # the command that the message recommends makes the file that needs no permission
    command = str(refusal.value).partition('python -c "')[2].partition('"')[0]
    subprocess.run([sys.executable, "-c", command], check=True)
    pickle.unlink()
    assert prepare(raw, tmp_path / "converted")["files"] == before["files"]


def test_a_hostile_pickle_is_not_opened(raw: Path, tmp_path: Path) -> None:
    write_pickle(raw).write_bytes(b"cos\nsystem\n(S'touch " + bytes(tmp_path / "owned") + b"'\ntR.")
    with pytest.raises(UserError, match="allow_pickle=true"):
        prepare(raw, tmp_path / "data")
    assert not (tmp_path / "owned").exists()
    write_pickle_of_something_else(raw)
    with pytest.raises(UserError, match="is not LUMA's table of images"):
        prepare(raw, tmp_path / "data", allow_pickle="true")


def write_pickle_of_something_else(raw: Path) -> None:
    pd.DataFrame({"x": [1]}).to_pickle(raw / "image_data_unprocessed.pickle")


def test_pickled_images_with_other_channels_are_left_out_and_reported(
    raw: Path, tmp_path: Path
) -> None:
    write_pickle(raw, odd=True)
    manifest = prepare(raw, tmp_path / "data", allow_pickle="true")
    reasons = [entry["reason"] for entry in manifest["report"]["skipped"]]
    assert reasons == [
        "image of shape (32, 32, 4), expected (32, 32, 3)",
        "image of shape (32, 32), expected (32, 32, 3)",
    ]
    assert manifest["report"]["skipped"][0]["file"].endswith("image_data_unprocessed.pickle row 0")


def rewrite(raw: Path, **arrays: np.ndarray) -> None:
    path = raw / "image_data_unprocessed.npz"
    with np.load(path) as data:
        kept = {name: data[name] for name in data.files}
    np.savez(path, **{name: a for name, a in {**kept, **arrays}.items() if a is not None})


@pytest.mark.parametrize(
    "damage,complaint",
    [
        (
            lambda raw: (raw / "audio_data_unprocessed.csv").unlink(),
            "is not a LUMA folder: expected",
        ),
        (
            lambda raw: (raw / "audio_data_unprocessed.csv").write_text("path,word\na.wav,man\n"),
            "needs the columns path and label",
        ),
        (
            lambda raw: (raw / "audio_data_unprocessed.csv").write_text("path,label\na.wav,\n"),
            "line 2: path or label is empty",
        ),
        (
            lambda raw: rewrite(raw, image=np.zeros((31, 32, 32, 4), np.uint8)),
            r"images are uint8 \(32, 32, 4\)",
        ),
        (
            lambda raw: rewrite(raw, image=np.zeros((31, 32, 32, 3), np.float32)),
            "images are float32",
        ),
        (lambda raw: rewrite(raw, label=np.array(["man"])), "31 images but 1 labels"),
        (lambda raw: rewrite(raw, label=None), "must hold the arrays image and label"),
        (
            lambda raw: rewrite(raw, label=np.array([None] * 31)),
            "must hold the arrays image and label",
        ),
        (
            lambda raw: (raw / "image_data_unprocessed.npz").write_bytes(b"x"),
            "must hold the arrays image and label",
        ),
    ],
)
def test_bad_tables_are_named(raw: Path, tmp_path: Path, damage: Any, complaint: str) -> None:
    damage(raw)
    with pytest.raises(UserError, match=complaint):
        prepare(raw, tmp_path / "data")
    assert not (tmp_path / "data" / "luma").exists()


def test_no_raw_folder_points_to_the_documentation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raw=<LUMA folder> is missing: see docs/data.md"):
        prepare_dataset("luma", None, tmp_path)


def test_the_class_list_is_lumas_first_22() -> None:
    names = luma.paper_classes()
    assert len(names) == len(set(names)) == 22
    assert (names[0], names[-1]) == ("man", "forest")


def test_the_papers_counts_share_the_classes_equally(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25,000 / 4,000 / 4,000 over 22 classes of 1,500, drawn without touching a file."""
    from miles_repro.data import luma_pairs
    from miles_repro.data.writer import Card, Preparation

    audio, image = read_tables(raw, allow_pickle=False)
    names = luma.paper_classes()
    audio.labels = image.labels = np.repeat(names, 1_500)
    audio.test = image.test = np.zeros(33_000, bool)
    monkeypatch.setattr(luma_pairs, "_readable", lambda prep, paths, waiting, needed: waiting)
    with Preparation(tmp_path / "x", Card("x", 1, "multiclass", (), "", ""), 1) as prep:
        pairs, labels = luma_pairs.draw_pairs(prep, audio, image, names, luma.PAPER, 0, False)
    assert (np.sort(pairs, axis=0) == np.arange(33_000)[:, None]).all()
    assert (pairs // 1_500 == labels[:, None]).all()
    for start, stop in ((0, 25_000), (25_000, 29_000), (29_000, 33_000)):
        shares = np.bincount(labels[start:stop])
        assert shares.max() - shares.min() <= 1
    frozen = "a71ce54c58528617ddcfdd3b0d0330e5d461111ab28af4c6bc417802317eb972"
    assert hashlib.sha256(pairs.tobytes()).hexdigest() == frozen


def test_the_stand_in_keeps_its_test_voices(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "luma_like"
    options = {"train": "440", "val": "88", "test": "132", "reuse": "true", "workers": "1"}
    manifest, _ = prepare_dataset("luma", raw, tmp_path, options)
    verify(tmp_path / "luma")
    assert manifest["modalities"] == {
        "audio": {"shape": [1, 96, 96], "dtype": "float16"},
        "image": {"shape": [3, 96, 96], "dtype": "uint8"},
    }
    assert manifest["schemes"]["given"]["per_class"]["test"] == [6] * 22
    assert manifest["report"]["skipped"] == []
