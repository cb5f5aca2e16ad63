"""Raw forms of S-MNIST as one table of aligned rows: six arrays, or MNIST and spoken digit wavs."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.arrays import read_npy, read_npz
from miles_repro.data.audio import mfcc
from miles_repro.data.filling import Skip
from miles_repro.data.media import BadFile, read_wav
from miles_repro.errors import UserError

FRAMES, COEFFICIENTS = 39, 13  # of the written and spoken digits database
SIX = [f"{kind}_{part}.npy" for part in ("train", "test") for kind in ("data_wr", "data_sp")] + [
    "labels_train.npy",
    "labels_test.npy",
]
Rows = NDArray[np.int64]


@dataclass
class Digits:
    """Aligned rows, those of the original training set first.

    image (N, 1, 28, 28) uint8 or float32; audio (N, 1, 39, 13) float32; labels (N,);
    ``pool``: how many rows belong to the original training set; ``schemes``: splits that come
    with the raw data; ``speakers``: of each row's recording, where known.
    """

    image: NDArray[Any]
    audio: NDArray[np.float32]
    labels: Rows
    pool: int
    schemes: dict[str, dict[str, Rows]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    speakers: NDArray[np.str_] | None = None


def read_six_files(raw: Path) -> Digits:
    """The six arrays of the database (doi:10.5281/zenodo.3515934), checked.

    An optional ``split_index.npz`` with ``train`` and ``val`` rows of the training arrays becomes
    the scheme ``given``; its test part is the whole test set.

    Raises:
        UserError: names the file that is missing or does not fit.
    """
    missing = [name for name in SIX if not (raw / name).is_file()]
    if missing:
        raise UserError(
            f"{raw} lacks {', '.join(missing)}: expected the six files {', '.join(sorted(SIX))}, "
            f"or give mnist=<folder> and speech=<folder> instead of raw"
        )
    sides = [_read_side(raw, part) for part in ("train", "test")]
    image, audio, labels = (np.concatenate(arrays) for arrays in zip(*sides, strict=True))
    digits = Digits(image, audio, labels, pool=len(sides[0][2]))
    if (raw / "split_index.npz").is_file():
        digits.schemes["given"] = _read_split(raw / "split_index.npz", digits)
    return digits


def _read_side(raw: Path, part: str) -> tuple[NDArray[Any], NDArray[np.float32], Rows]:
    wr, sp, lab = (raw / f"{kind}_{part}.npy" for kind in ("data_wr", "data_sp", "labels"))
    written, spoken, labels = _load(wr), _load(sp), np.atleast_1d(_load(lab).squeeze())
    if not len(labels):
        raise UserError(f"{lab} holds no row")
    for path, array, width in ((wr, written, 784), (sp, spoken, FRAMES * COEFFICIENTS)):
        if array.ndim < 2 or int(np.prod(array.shape[1:])) != width:
            raise UserError(f"{path} has shape {array.shape}: rows of {width} values are expected")
        if len(array) != len(labels):
            raise UserError(f"{path} has {len(array):,} rows, {lab} has {len(labels):,}")
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array.reshape(len(array), -1)).all(axis=1)).sum())
            raise UserError(f"{path} holds values that are not finite, in {bad:,} rows")
    if labels.ndim != 1 or not np.isin(labels, np.arange(10)).all():
        raise UserError(f"{lab} must hold one digit 0 to 9 a row")
    whole = written.min() >= 0 and written.max() > 1 and (written == np.floor(written)).all()
    pixels = written.astype(np.uint8 if whole and written.max() <= 255 else np.float32)
    return (
        pixels.reshape(-1, 1, 28, 28),
        spoken.astype(np.float32).reshape(-1, 1, FRAMES, COEFFICIENTS),
        labels.astype(np.int64),
    )


def _load(path: Path) -> NDArray[Any]:
    array = read_npy(path)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path} holds {array.dtype}, numbers are expected")
    return array


def _read_split(path: Path, digits: Digits) -> dict[str, Rows]:
    train, val = read_npz(path, ["train", "val"])
    for rows in (train, val):
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not len(rows):
            raise UserError(f"{path}: train and val must be lists of row numbers")
    train, val = train.astype(np.int64), val.astype(np.int64)
    together = np.concatenate([train, val])
    if together.min() < 0 or together.max() >= digits.pool:
        raise UserError(f"{path} names rows beyond the {digits.pool:,} of the training arrays")
    if len(np.unique(together)) != len(together):
        raise UserError(f"{path} uses a row twice")
    return {"train": train, "val": val, "test": np.arange(digits.pool, len(digits.labels))}


def read_mnist(root: Path) -> dict[str, tuple[NDArray[np.uint8], Rows]]:
    """MNIST's idx files, plain or .gz, in ``root``, ``root/raw`` or ``root/MNIST/raw``.

    Returns:
        ``train`` and ``test`` -> images (N, 1, 28, 28), labels (N,).
    """
    parts = {}
    for part, stem in (("train", "train"), ("test", "t10k")):
        pixels = _read_idx(root, f"{stem}-images-idx3-ubyte", 3)
        labels = _read_idx(root, f"{stem}-labels-idx1-ubyte", 1)
        if len(pixels) != len(labels):
            raise UserError(f"{root}: {len(pixels):,} {part} images but {len(labels):,} labels")
        parts[part] = (pixels.reshape(-1, 1, 28, 28), labels.astype(np.int64))
    return parts


def _read_idx(root: Path, name: str, axes: int) -> NDArray[np.uint8]:
    places = (root, root / "raw", root / "MNIST" / "raw")
    found = [
        p / f"{name}{end}" for p in places for end in ("", ".gz") if (p / f"{name}{end}").is_file()
    ]
    if not found:
        raise UserError(f"{root} holds no {name} or {name}.gz (nor do raw/ and MNIST/raw/ in it)")
    try:
        content = found[0].read_bytes()
        if found[0].suffix == ".gz":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{found[0]} cannot be read ({error})") from None
    head = 4 + 4 * axes
    shape = np.frombuffer(content[4:head].ljust(4 * axes, b"\xff"), dtype=">i4").astype(int)
    values = np.frombuffer(content[head:], dtype=np.uint8)
    complete = len(values) == math.prod(shape.tolist())  # not numpy's product, which wraps around
    if content[:4] != bytes([0, 0, 8, axes]) or not complete:
        raise UserError(f"{found[0]} is not a complete idx file of unsigned bytes with {axes} axes")
    if axes == 3 and tuple(shape[1:]) != (28, 28):
        raise UserError(f"{found[0]} holds pictures of {shape[1]} x {shape[2]}, not 28 x 28")
    return values.reshape(shape)


# {digit}_{speaker}_{take}.wav: Free Spoken Digit Dataset; AudioMNIST the same, in speaker folders
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<take>\d+)\.wav")


@dataclass(frozen=True)
class Clip:
    """One recording of a spoken digit."""

    path: Path
    digit: int
    speaker: str


def find_clips(folder: Path) -> tuple[list[Clip], list[Path]]:
    """All recordings below ``folder`` in order of speaker, digit and take; and wavs not so named.

    Raises:
        UserError: the folder is missing or holds no wav of that naming.
    """
    if not folder.is_dir():
        raise UserError(f"speech={folder} is not a folder")
    found, strange = [], []
    for path in sorted(folder.rglob("*.wav")):
        match = NAME.fullmatch(path.name)
        if match is None:
            strange.append(path)
            continue
        clip = Clip(path, int(match["digit"]), match["speaker"])
        found.append((clip.speaker, clip.digit, int(match["take"]), str(path), clip))
    if not found:
        raise UserError(f"{folder} holds no wav named <digit>_<speaker>_<take>.wav")
    return [entry[-1] for entry in sorted(found, key=lambda entry: entry[:-1])], strange


def clip_features(settings: Mapping[str, Any], item: tuple[Path]) -> dict[str, NDArray[Any]]:
    """Worker: MFCCs (1, 39, 13) of a recording, continued with its last frame or cut."""
    rate = settings["sample_rate"]
    try:
        wave = read_wav(item[0], rate)
    except BadFile as bad:
        raise Skip(bad.path, bad.reason) from None
    window, hop = (rate * settings[key] // 1000 for key in ("window_ms", "hop_ms"))
    if len(wave) < window:
        raise Skip(item[0], f"shorter than one window of {settings['window_ms']} ms")
    frames = mfcc(wave, rate, window, hop, settings["n_mels"], COEFFICIENTS)
    kept = frames[np.minimum(np.arange(FRAMES), len(frames) - 1)]
    return {"clips": kept[None].astype(np.float32)}
