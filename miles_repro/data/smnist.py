"""S-MNIST: the written and spoken digits database, or a set built like it from MNIST and wavs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.download import Source
from miles_repro.data.smnist_build import build
from miles_repro.data.smnist_raw import Digits, read_six_files
from miles_repro.data.splits import Rows, grouped_split, stratified_split
from miles_repro.data.writer import Card, Preparation
from miles_repro.errors import UserError

VERSION = 2
ORIGINAL = (60_000, 10_000)  # rows of the original database
KINDS = ("data_wr", "data_sp", "labels")
PAPER = {"train": 8_000, "val": 2_000, "test": 2_000}
DOWNLOAD = Source(  # version 2.0, to which the DOI that the paper cites leads
    page="https://zenodo.org/records/4452953",
    listing="https://zenodo.org/api/records/4452953",
    files=tuple(f"{kind}_{part}.npy" for kind in KINDS for part in ("train", "test")),
    at="https://zenodo.org/records/4452953/files/{name}?download=1",
    licence="as stated on that page; made from MNIST (CC BY-SA 3.0), Speech Commands (CC BY 4.0)",
)
SIX_FILES = (
    "six arrays in the layout of the written and spoken digits database for multimodal learning "
    "(doi:10.5281/zenodo.3515934)",
    "as stated on its Zenodo record; made from MNIST (CC BY-SA 3.0) and "
    "Speech Commands (CC BY 4.0)",
)
BUILT = (
    "built in the manner of the written and spoken digits database from MNIST and a folder of "
    "spoken digit wavs",
    "images: MNIST, CC BY-SA 3.0; audio: that of the recordings (Free Spoken Digit Dataset: "
    "CC BY-SA 4.0; AudioMNIST: MIT)",
)


def prepare(
    raw: Path | None,
    out: Path,
    *,
    train: int,
    val: int,
    test: int,
    seed: int,
    size: int,
    resize: str,
    sample_rate: int,
    window_ms: int,
    hop_ms: int,
    n_mels: int,
    mnist: str = "",
    speech: str = "",
    val_speakers: str = "",
    test_speakers: str = "",
    workers: int | None = None,
) -> dict[str, Any]:
    """Written and spoken digits (10 classes) from six .npy files, or from mnist= and speech=.

    Image (1, 28, 28); audio float32 (1, size, size), MFCC frames x coefficients resized.
    Schemes, each with ``train`` / ``val`` rows of the original training set, ``test`` of the test:

    - ``paper``: stratified at random. The database repeats recordings, so one recording may be
      heard in training and in validation; how often is counted in the notes.
    - ``grouped``: the same sizes, but identical audio rows are never on two sides. Left out, with
      a note, where the raw data are too few for that.
    - ``given`` (raw has split_index.npz) or ``speaker`` (built from wavs with at least three
      speakers; nobody is heard on two sides).

    Args:
        raw: folder of data_wr_*, data_sp_*, labels_* (train, test); None with mnist and speech.
        train, val, test: rows to take; the paper's are 8,000 / 2,000 / 2,000.
        seed: of every draw.
        size: side of the audio picture; 0 keeps 39 x 13.
        resize: bilinear | nearest | bicubic, as torch.nn.functional.interpolate names them.
        sample_rate, window_ms, hop_ms, n_mels: how wavs become MFCCs.
        mnist, speech: folders of MNIST's idx files and of <digit>_<speaker>_<take>.wav.
        val_speakers, test_speakers: comma-separated; default: the last sixth, and the sixth before,
            of the speakers in alphabetical order.
    """
    settings = {
        "train": train,
        "val": val,
        "test": test,
        "seed": seed,
        "size": size,
        "resize": resize,
    }
    sizes = {"train": train, "val": val, "test": test}
    if resize not in ("bilinear", "bicubic", "nearest"):
        raise UserError(f"resize={resize}: one of bilinear, bicubic, nearest is expected")
    if min(sizes.values()) < 10:
        raise UserError("train, val and test need at least 10 rows each")
    if raw is None and not (mnist and speech):
        raise UserError(
            "raw=<folder of the six .npy files> is missing (or mnist=<folder> speech=<folder>)"
        )
    if raw is not None and (mnist or speech):
        raise UserError("raw= holds a complete set: leave mnist= and speech= away")
    source, licence = SIX_FILES if raw is not None else BUILT
    if raw is None:
        settings |= {"sample_rate": sample_rate, "window_ms": window_ms, "hop_ms": hop_ms}
        settings |= {"n_mels": n_mels, "val_speakers": val_speakers, "test_speakers": test_speakers}
    card = Card(
        name="smnist",
        version=VERSION,
        task="multiclass",
        classes=tuple("0123456789"),
        source=source,
        licence=licence,
        parameters=settings,
    )
    with Preparation(out, card, workers) as prep:
        if raw is not None:
            digits = read_six_files(raw)
            if (digits.pool, len(digits.labels) - digits.pool) != ORIGINAL:
                prep.stand_in(
                    f"the raw files hold {digits.pool:,} + {len(digits.labels) - digits.pool:,} "
                    f"rows, not the original's 60,000 + 10,000: these are not the paper's data"
                )
        else:
            digits = build(prep, Path(mnist), Path(speech), sizes, settings)
            prep.stand_in("built from MNIST and other recordings: these are not the paper's data")
        if sizes != PAPER:
            prep.stand_in(f"sizes differ from the paper's 8,000 / 2,000 / 2,000: {sizes}")
        same_audio = _groups(digits.audio)
        schemes = _schemes(digits, same_audio, sizes, seed)
        for note in digits.notes:
            prep.note(note)
        used = np.unique(np.concatenate([r for parts in schemes.values() for r in parts.values()]))
        for scheme, parts in schemes.items():
            prep.split(scheme, **{p: np.searchsorted(used, rows) for p, rows in parts.items()})
            heard = {
                part: int(np.isin(same_audio[parts[part]], same_audio[parts["train"]]).sum())
                for part in ("val", "test")
            }
            prep.note(
                f"scheme {scheme}: audio that also occurs in training: {heard['val']:,} of "
                f"{len(parts['val']):,} validation rows, {heard['test']:,} of "
                f"{len(parts['test']):,} test rows"
            )
        prep.write("image", digits.image[used])
        prep.write("audio", _resized(digits.audio[used], size, resize))
        prep.write("labels", digits.labels[used])
        if digits.speakers is None:
            prep.group("recording", same_audio[used])
        else:
            names, of_row = np.unique(digits.speakers[used], return_inverse=True)
            prep.group("speaker", of_row, names.tolist())
        prep.normalise("image", axes=(1, 2))
        prep.normalise("audio", axes=(1, 2))
        return prep.finish()


def _schemes(
    digits: Digits, groups: Rows, sizes: dict[str, int], seed: int
) -> dict[str, dict[str, Rows]]:
    pool, rest = digits.labels[: digits.pool], digits.labels[digits.pool :]
    wanted = {part: sizes[part] for part in ("train", "val")}
    if sum(wanted.values()) > len(pool) or sizes["test"] > len(rest):
        raise UserError(
            f"train={sizes['train']} + val={sizes['val']} and test={sizes['test']} rows were asked "
            f"for, but there are {len(pool):,} training and {len(rest):,} test rows: give smaller "
            f"train=, val=, test="
        )
    test = digits.pool + stratified_split(rest, {"test": sizes["test"]}, seed + 1)["test"]
    schemes = {"paper": {**stratified_split(pool, wanted, seed), "test": test}}
    unheard = digits.pool + np.flatnonzero(~np.isin(groups[digits.pool :], groups[: digits.pool]))
    try:
        parts = grouped_split(pool, groups[: digits.pool], wanted, seed)
        drawn = stratified_split(digits.labels[unheard], {"test": sizes["test"]}, seed + 1)["test"]
        schemes["grouped"] = {**parts, "test": unheard[drawn]}
    except UserError as reason:
        digits.notes.append(f"no scheme grouped: {reason}")
    return schemes | digits.schemes


def _groups(audio: NDArray[np.float32]) -> Rows:
    """A number for each row, the same for rows with identical audio."""
    flat = np.ascontiguousarray(audio.reshape(len(audio), -1))
    rows = flat.view(np.dtype((np.void, flat.dtype.itemsize * flat.shape[1])))[:, 0]
    return np.unique(rows, return_inverse=True)[1].astype(np.int64)


def _resized(audio: NDArray[np.float32], size: int, mode: str) -> NDArray[np.float32]:
    """(N, 1, 39, 13) as (N, 1, size, size); 0 leaves it as it is."""
    if size == 0:
        return audio
    from torch import from_numpy
    from torch.nn.functional import interpolate

    corners = None if mode == "nearest" else False
    return interpolate(from_numpy(audio), (size, size), mode=mode, align_corners=corners).numpy()
