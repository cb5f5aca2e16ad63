"""LUMA: spoken words and CIFAR images of 22 classes, paired at random within their class."""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.audio import mel_spectrogram
from miles_repro.data.luma_pairs import draw_pairs
from miles_repro.data.luma_raw import read_tables
from miles_repro.data.media import BadFile, read_wav
from miles_repro.data.writer import Card, Preparation, Refuse
from miles_repro.errors import UserError

VERSION = 2
DOWNLOAD = (
    "its own tools put it together from many sources (git lfs, then get_unprocessed_data.py): "
    "follow https://github.com/bezirganyan/LUMA and docs/data.md, then raw=<folder>"
)
PAPER = {"train": 25_000, "val": 4_000, "test": 4_000}
# of the CIFAR images, as LUMA's own baseline has them
IMAGE_MEAN, IMAGE_STD = (0.51, 0.49, 0.44), (0.27, 0.26, 0.28)
LOG_FLOOR = 1e-6


def prepare(
    raw: Path | None,
    out: Path,
    *,
    train: int,
    val: int,
    test: int,
    classes: str,
    seed: int,
    sample_rate: int,
    window: int,
    hop: int,
    n_mels: int,
    frames: int,
    log_mel: bool,
    image_size: int,
    reuse: bool = False,
    allow_pickle: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Spoken words and CIFAR images (22 classes) from LUMA's unprocessed dump.

    Audio (1, n_mels, frames): mel spectrogram, padded with silence or cut at the end, float16 as
    logarithm, else float32. Image (3, image_size, image_size) uint8, bilinear. Every class has the
    same share of every part; no recording and no image is on two sides. One scheme: ``paper`` when
    each modality is one table, ``given`` when the raw data have a test side of their own, which
    then is the test part.

    Args:
        raw: the LUMA folder (see docs/data.md); wavs under raw/audio.
        train, val, test: pairs; the paper's are 25,000 / 4,000 / 4,000.
        classes: comma-separated names; empty for the 22 of the paper (inferred).
        seed: of every draw.
        sample_rate, window, hop, n_mels, frames, log_mel: the spectrogram, in Hz and samples.
        reuse: let an item occur in several pairs of its part where a class has too few.
        allow_pickle: unpickle images that are not there as .npz; runs code the file may hold.
    """
    if raw is None:
        raise UserError("raw=<LUMA folder> is missing: see docs/data.md for what it holds")
    sizes = {"train": train, "val": val, "test": test}
    names = [name.strip() for name in classes.split(",") if name.strip()] or paper_classes()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"classes={classes}: {', '.join(twice)} more than once")
    if min(sizes.values()) < len(names):
        raise UserError(
            f"train, val and test need at least one pair of each of {len(names)} classes"
        )
    audio, image = read_tables(raw, allow_pickle)
    settings = {
        "sample_rate": sample_rate,
        "window": window,
        "hop": hop,
        "n_mels": n_mels,
        "frames": frames,
        "log_mel": log_mel,
        "image_size": image_size,
    }
    card = Card(
        name="luma",
        version=VERSION,
        task="multiclass",
        classes=tuple(names),
        source="LUMA (github.com/bezirganyan/LUMA), recordings and images of its unprocessed dump",
        licence=(
            "audio: CC BY-SA 4.0 (Spoken Wikipedia CC BY-SA 4.0, LibriSpeech CC BY 4.0, Common "
            "Voice CC0); images: CIFAR-10/100 state none, generated ones Apache-2.0"
        ),
        parameters={
            **settings,
            **sizes,
            "classes": classes,
            "seed": seed,
            "reuse": reuse,
            "pictures_sha256": hashlib.sha256(image.pictures.tobytes()).hexdigest(),
        },
    )
    with Preparation(out, card, workers) as prep:
        for file, reason in image.skipped:
            prep.skip(file, reason)
        sided = audio.sided and image.sided
        pairs, labels = draw_pairs(prep, audio, image, names, sizes, seed, reuse)
        pixels = prep.partial / "images.npy"
        with prep.disk():
            np.save(pixels, image.pictures)
        items = [(audio.paths[a], i) for a, i in pairs.tolist()]
        kind = np.float16 if log_mel else np.float32
        layout = {
            "audio": ((1, n_mels, frames), kind),
            "image": ((3, image_size, image_size), np.uint8),
        }
        prep.fill(items, partial(_sample, settings, pixels), layout)
        prep.write("labels", labels)
        ends = np.cumsum([train, val, test]).tolist()
        train_rows, val_rows, test_rows = np.split(np.arange(ends[-1]), ends[:-1])
        scheme = "given" if sided else "paper"
        prep.split(scheme, train=train_rows, val=val_rows, test=test_rows)
        prep.normalise("audio", axes=(1, 2))
        column = [255 * np.reshape(values, (3, 1, 1)) for values in (IMAGE_MEAN, IMAGE_STD)]
        prep.normalise("image", constants=(column[0], column[1]))
        if reuse:  # items repeat, inside a part only: whole parts are all that may change sides
            prep.group("part", np.repeat([0, 1, 2], [train, val, test]), list(sizes))
        if sizes != PAPER or reuse or scheme != "paper":
            prep.stand_in(
                f"not the paper's protocol: sizes {sizes}, scheme {scheme}, reuse {reuse}"
            )
        return prep.finish()


def paper_classes() -> list[str]:
    """The 22 classes, in the order of LUMA's label ids 0 to 21 (which of the 50 is inferred)."""
    text = (files("miles_repro.data") / "embedded" / "luma_classes.txt").read_text(encoding="ascii")
    return text.split()


def _sample(
    settings: dict[str, Any], pixels: Path, item: tuple[Path, int]
) -> dict[str, NDArray[Any]]:
    """Worker: one (recording, image) pair as arrays."""
    from PIL import Image

    path, at = item
    try:
        wave = read_wav(path, settings["sample_rate"])
    except BadFile as bad:  # readable a moment ago, when the pairs were drawn
        raise Refuse(bad.path, bad.reason) from None
    rate, window, hop = (settings[key] for key in ("sample_rate", "window", "hop"))
    mel = mel_spectrogram(wave, rate, window, hop, settings["n_mels"], center=True)
    mel = mel[:, : settings["frames"]]
    mel = np.pad(mel, ((0, 0), (0, settings["frames"] - mel.shape[1])))
    if settings["log_mel"]:
        mel = np.log(mel + LOG_FLOOR).astype(np.float16)
    size = (settings["image_size"], settings["image_size"])
    picture = Image.fromarray(_pixels(pixels)[at]).resize(size, Image.Resampling.BILINEAR)
    return {"audio": mel[None], "image": np.asarray(picture).transpose(2, 0, 1)}


@lru_cache(maxsize=1)
def _pixels(path: Path) -> NDArray[np.uint8]:
    return np.load(path, mmap_mode="r", allow_pickle=False)
