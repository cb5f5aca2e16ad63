"""S-MNIST built from MNIST and wavs."""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from smnist_kit import load, prepare, raw

from miles_repro.data import smnist
from miles_repro.data.audio import mel_spectrogram, mfcc
from miles_repro.data.command import prepare_dataset
from miles_repro.data.manifest import verify
from miles_repro.errors import UserError

__all__ = ["raw"]  # fixtures


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """MNIST idx files (plain and .gz) and recordings of four speakers, one in an own folder."""
    mnist, speech = tmp_path / "mnist", tmp_path / "speech"
    (mnist / "MNIST" / "raw").mkdir(parents=True)
    random = np.random.default_rng(1)
    for stem, n in (("train", 400), ("t10k", 100)):
        pixels = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        head = struct.pack(">4B3i", 0, 0, 8, 3, n, 28, 28)
        labels = struct.pack(">4Bi", 0, 0, 8, 1, n) + bytes(i % 10 for i in range(n))
        folder = mnist / "MNIST" / "raw"
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(head + pixels.tobytes())
        )
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(labels)
    for number, speaker in enumerate(("ann", "bob", "cy", "47")):
        rate = 16_000 if speaker == "47" else 8_000  # AudioMNIST: folders of speakers, another rate
        folder = speech / "47" if speaker == "47" else speech
        folder.mkdir(parents=True, exist_ok=True)
        for digit in range(10):
            for take in range(2):
                time = np.arange(int(rate * (0.3 + 0.01 * digit))) / rate
                wave = 0.3 * np.sin(
                    2 * np.pi * (300 + 150 * digit + 40 * number + 10 * take) * time
                )
                soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", wave, rate)
    return {"mnist": str(mnist), "speech": str(speech)}


def without_digit(sources: dict[str, str]) -> None:
    for path in Path(sources["speech"]).glob("7_cy_*.wav"):
        path.unlink()


def cut_idx(sources: dict[str, str]) -> None:
    path = Path(sources["mnist"]) / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def cut_gz(sources: dict[str, str]) -> None:
    path = Path(sources["mnist"]) / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])


def fewer_labels(sources: dict[str, str]) -> None:
    path = Path(sources["mnist"]) / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(struct.pack(">4Bi", 0, 0, 8, 1, 99) + path.read_bytes()[8:-1])


def test_builds_a_set_whose_speakers_stay_on_one_side(
    sources: dict[str, str], tmp_path: Path
) -> None:
    manifest = prepare(None, tmp_path / "data", **sources)
    image, audio, labels, splits = load(tmp_path / "data")
    assert list(manifest["schemes"]) == ["paper", "grouped", "speaker"]
    sizes = {part: manifest["schemes"]["speaker"][part] for part in ("train", "val", "test")}
    assert sizes == {"train": 160, "val": 40, "test": 40}
    notes = manifest["report"]["notes"]
    assert "built from 80 recordings; speakers: train 47, ann; val bob; test cy" in notes
    assert any(
        "speaker: audio that also occurs in training: 0 of 40 validation rows, 0" in n
        for n in notes
    )
    clips = [audio[splits[f"speaker.{part}"]] for part in ("train", "val", "test")]
    # 4 recordings of a digit serve 16 training pairs, 2 serve 4 pairs: all equally often
    uses = [Counter(clip.tobytes() for clip in part) for part in clips]
    assert [set(count.values()) for count in uses] == [{4}, {2}, {2}]
    one_take = {label: audio[labels == label] for label in range(10)}
    assert all(len(np.unique(group, axis=0)) == 8 for group in one_take.values())
    assert np.isfinite(audio).all()
    assert image.dtype == np.uint8


def test_speakers_can_be_named(sources: dict[str, str], tmp_path: Path) -> None:
    options = sources | {"val_speakers": "ann", "test_speakers": "47,bob"}
    manifest = prepare(None, tmp_path / "data", **options)
    assert "train cy; val ann; test 47, bob" in " ".join(manifest["report"]["notes"])


def test_two_speakers_are_divided_by_recording(sources: dict[str, str], tmp_path: Path) -> None:
    for path in Path(sources["speech"]).rglob("*.wav"):
        if "_bob_" in path.name or "_cy_" in path.name:
            path.unlink()
    for digit in range(10):
        for take in (2, 3, 4):
            old = Path(sources["speech"]) / f"{digit}_ann_1.wav"
            wave, rate = soundfile.read(old)
            soundfile.write(old.with_name(f"{digit}_ann_{take}.wav"), wave / take, rate)
    manifest = prepare(None, tmp_path / "data", **sources)
    assert "speaker" not in manifest["schemes"]
    notes = " ".join(manifest["report"]["notes"])
    assert "audio that also occurs in training" in notes
    assert "test 47, ann" in notes


def test_unusable_recordings_are_left_out_and_reported(
    sources: dict[str, str], tmp_path: Path
) -> None:
    speech = Path(sources["speech"])
    whole = (speech / "3_ann_0.wav").read_bytes()
    (speech / "3_ann_0.wav").write_bytes(whole[: len(whole) // 2])
    (speech / "4_ann_0.wav").write_bytes(b"")
    (speech / "5_ann_0.wav").write_bytes(b"RIFF not a wav at all")
    soundfile.write(speech / "6_ann_0.wav", np.zeros(100), 8_000)
    soundfile.write(speech / "hello.wav", np.zeros(9000), 8_000)
    manifest = prepare(None, tmp_path / "data", **sources)
    skipped = {Path(e["file"]).name: e["reason"] for e in manifest["report"]["skipped"]}
    assert sorted(skipped) == [*(f"{digit}_ann_0.wav" for digit in (3, 4, 5, 6)), "hello.wav"]
    assert "truncated" in skipped["3_ann_0.wav"]
    assert "empty" in skipped["4_ann_0.wav"]
    assert "not readable" in skipped["5_ann_0.wav"]
    assert skipped["6_ann_0.wav"] == "shorter than one window of 50 ms"
    assert skipped["hello.wav"] == "not named <digit>_<speaker>_<take>.wav"
    assert "built from 76 recordings" in " ".join(manifest["report"]["notes"])


@pytest.mark.parametrize(
    "damage,options,complaint",
    [
        (None, {"speech": "/nowhere"}, "speech=/nowhere is not a folder"),
        (None, {"mnist": "/nowhere"}, "/nowhere holds no train-images-idx3-ubyte"),
        (None, {"val_speakers": "eve"}, "no recordings of eve: speakers are 47, ann, bob, cy"),
        (None, {"val_speakers": "cy", "test_speakers": "cy"}, "must be different people"),
        (
            None,
            {"val_speakers": "cy,bob", "test_speakers": "47,ann"},
            "leave somebody for training",
        ),
        (None, {"train": "390"}, "390 train . 40 val rows were asked for, .* only 400"),
        (without_digit, {}, r"the test recordings lack the digits \[7\]"),
        (cut_idx, {}, "t10k-labels-idx1-ubyte is not a complete idx file"),
        (cut_gz, {}, "train-images-idx3-ubyte.gz cannot be read"),
        (fewer_labels, {}, "100 test images but 99 labels"),
    ],
)
def test_bad_sources_are_named(
    sources: dict[str, str], tmp_path: Path, damage: Any, options: dict[str, str], complaint: str
) -> None:
    if damage:
        damage(sources)
    with pytest.raises(UserError, match=complaint):
        prepare(None, tmp_path / "data", **sources | options)


def test_a_folder_without_digit_names_is_refused(sources: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no wav named <digit>_<speaker>_<take>.wav"):
        prepare(None, tmp_path / "data", **sources | {"speech": str(tmp_path / "empty")})


def test_mel_bands_find_a_tone() -> None:
    rate = 16_000
    for frequency in (500.0, 2000.0, 6000.0):
        tone = np.sin(2 * np.pi * frequency * np.arange(rate) / rate).astype(np.float32)
        power = mel_spectrogram(tone, rate, 400, 200, 40, center=True)
        assert power.shape == (40, 81)
        mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42)[1:-1]  # HTK scale
        nearest = np.abs(mels - 2595 * np.log10(1 + frequency / 700)).argmin()
        assert abs(int(power.mean(axis=1).argmax()) - nearest) <= 1


def test_mel_power_is_the_filtered_power_of_torchs_stft() -> None:
    import torch
    from transformers.audio_utils import mel_filter_bank

    wave = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    spectrum = torch.stft(
        torch.from_numpy(wave), 400, 200, window=torch.hann_window(400), return_complex=True
    )
    filters = mel_filter_bank(201, 30, 0.0, 8000.0, 16_000, None, "htk")
    expected = filters.T @ spectrum.abs().square().numpy()
    found = mel_spectrogram(wave, 16_000, 400, 200, 30, center=True)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_loudness_moves_the_first_cepstral_coefficient_only() -> None:
    wave = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    quiet, loud = (mfcc(wave * gain, 8000, 400, 200, 26, 13) for gain in (0.1, 0.4))
    assert quiet.shape == (39, 13)
    np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=1e-3)
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], 2 * np.log(4) * np.sqrt(26), rtol=1e-3)


def test_the_stand_in_with_its_own_split(shared_data: Path, tmp_path: Path) -> None:
    manifest, _ = prepare_dataset("smnist", shared_data / "smnist_wsd", tmp_path)
    for scheme in ("paper", "grouped", "given"):
        counts = manifest["schemes"][scheme]
        assert [counts[part] for part in ("train", "val", "test")] == [8000, 2000, 2000]
        assert counts["per_class"]["val"] == [200] * 10
    assert manifest["modalities"]["audio"]["shape"] == [1, 28, 28]
    notes = manifest["report"]["notes"]
    given = next(note for note in notes if note.startswith("scheme given"))
    assert "0 of 2,000 validation rows, 0 of 2,000 test rows" in given
    leak = next(note for note in notes if note.startswith("scheme paper"))
    assert "1,984 of 2,000 validation rows, 0 of 2,000 test rows" in leak
    verify(tmp_path / "smnist")


@pytest.mark.slow
def test_the_builder_on_all_of_mnist_and_the_spoken_digits(
    shared_data: Path, tmp_path: Path
) -> None:
    options = {"mnist": str(shared_data / "mnist"), "speech": str(shared_data / "fsdd")}
    manifest, _ = prepare_dataset("smnist", None, tmp_path, options)
    again, _ = prepare_dataset("smnist", None, tmp_path / "again", options | {"workers": "1"})
    assert manifest == again
    assert [manifest["schemes"]["speaker"][p] for p in ("train", "val", "test")] == [
        8000,
        2000,
        2000,
    ]
    assert manifest["report"]["skipped"] == []
    assert "val theo; test yweweler" in " ".join(manifest["report"]["notes"])


@pytest.mark.slow
def test_the_original_sizes_give_the_papers_counts(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    raw = tmp_path / "raw"
    raw.mkdir()
    for part, n, clips in (("train", 60_000, 34_801), ("test", 10_000, 4_107)):
        spoken = random.normal(size=(clips, 507)).astype(np.float32)
        heard = np.concatenate([np.arange(clips), random.integers(0, clips, n - clips)])
        np.save(raw / f"data_wr_{part}.npy", random.integers(0, 256, (n, 784), dtype=np.uint8))
        np.save(raw / f"data_sp_{part}.npy", spoken[heard])
        np.save(raw / f"labels_{part}.npy", heard % 10)
    manifest, _ = prepare_dataset("smnist", raw, tmp_path / "data")
    for scheme in ("paper", "grouped"):
        counts = manifest["schemes"][scheme]
        assert [counts[part] for part in ("train", "val", "test")] == [8000, 2000, 2000]
    notes = " ".join(manifest["report"]["notes"])
    assert not manifest["report"]["stand_in"]
    assert "scheme grouped: audio that also occurs in training: 0 of 2,000 validation" in notes
    assert smnist.PAPER == {"train": 8000, "val": 2000, "test": 2000}
