"""LUMA from its raw tables: pairs agree, sides share nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from luma_kit import NAMES, prepare, raw, write_tables

from miles_repro.data import luma
from miles_repro.errors import UserError

__all__ = ["raw"]  # fixtures


def load(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    folder = data / "luma"
    with np.load(folder / "splits.npz") as splits:
        parts = {name.partition(".")[2]: splits[name] for name in splits.files}
    return (*(np.load(folder / f"{m}.npy") for m in ("audio", "image", "labels")), parts)


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
