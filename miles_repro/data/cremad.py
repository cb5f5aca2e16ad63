"""Prepares CREMA-D (Cao et al. 2014): one video frame and a log spectrogram per clip.

Raw folder (a clone of the official repository has it)::

    AudioWAV/<clip>.wav
    VideoFlash/<clip>.flv | VideoMP4/<clip>.mp4 | Image-01-FPS/<clip>/*.jpg   (first one present)

Prepared: ``video`` uint8 (3, size, size) and ``audio`` float16 (1, size, size). Rows are the
official clips in order of their names. What the paper says (sec. IV-A): one frame per clip,
spectrogram 257x299 with window 512 and overlap 353, both resized to 224x224. The rest follows the
literature's pipeline (Peng et al. 2022) where it can; values are those of conf/dataset/cremad.yaml:

- Frame ``first``: the one at 0.5 s, which is what the usual 1-fps extraction writes first, so a
  video and its ``Image-01-FPS`` folder (first file by name) give the same frame. ``middle``: the
  middle frame, or the middle file. Stretched to a square, antialiased bilinear.
- Audio: mono, 16 kHz, repeated and cut to 3 s; power spectral density per Hz in windows of 512
  samples (scipy's defaults: Tukey window, constant detrended), natural logarithm, resized with
  antialiased bilinear from 257 frequencies (low ones first) x 299 times.

Rules: every official clip must be present and readable, or the preparation is refused with the
list of those that are not; ``partial=true`` leaves them out instead and reports each. Clip
1076_MTI_SAD_XX, whose published audio is unusable, is kept with silence, so that the paper's 7,442
clips hold; it is left out only if its picture cannot be read either.
"""

from __future__ import annotations

from functools import partial as bind
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.cremad_index import EMOTIONS, SCHEMES, Clip, official_clips
from miles_repro.data.media import BadFile, read_image, read_video_frame, read_wav
from miles_repro.data.splits import shuffled
from miles_repro.data.writer import Card, Preparation, Refuse, Skip
from miles_repro.errors import UserError

VERSION = 2
DOWNLOAD = (
    "its 15,000 files are in git-lfs: git lfs install, then git clone "
    "https://github.com/CheyneyComputerScience/CREMA-D and raw=<the clone> (docs/data.md)"
)
FIRST_S = 0.5
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, std of RGB in [0, 1]
ORDER_SEED = 0
KNOWN_BAD = "1076_MTI_SAD_XX"
PICTURES = {"VideoFlash": ".flv", "VideoMP4": ".mp4", "Image-01-FPS": ""}


class Settings(NamedTuple):
    """How a clip becomes two arrays; see ``prepare``."""

    frame: str
    size: int
    rate: int
    seconds: float
    window: int
    overlap: int
    log_floor: float


Item = tuple[str, Path | None, Path]  # clip, its wav (None: silence), its video or frame


def prepare(
    raw: Path | None,
    out: Path,
    *,
    frame: str,
    size: int,
    rate: int,
    seconds: float,
    window: int,
    overlap: int,
    log_floor: float,
    partial: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Emotions in acted speech (6 classes): a video frame and a spectrogram of each clip.

    Args:
        raw: the folder described above.
        out: the folder to write.
        frame: which frame of a clip, ``first`` or ``middle``.
        size: side of frame and spectrogram after resizing.
        rate, seconds: the audio, in Hz; repeated or cut to that length.
        window, overlap: of the spectrogram, in samples.
        log_floor: power per Hz added before the logarithm.
        partial: leave out clips that are missing or unreadable instead of refusing them.
        workers: processes; all cores when None.

    Returns:
        The manifest.

    Raises:
        UserError: a folder is missing, or clips are refused (every one is listed).
    """
    if raw is None:
        raise UserError("cremad needs raw=<folder with AudioWAV and VideoFlash or VideoMP4>")
    if frame not in ("first", "middle"):
        raise UserError(f"frame={frame}: choose first or middle")
    if min(size, rate, seconds, overlap + 1, log_floor) <= 0 or not overlap < window:
        raise UserError(
            "size, rate, seconds, window and log_floor must be positive, overlap < window"
        )
    settings = Settings(frame, size, rate, seconds, window, overlap, log_floor)
    pictures = _picture_folder(raw)
    card = Card(
        name="cremad",
        version=VERSION,
        task="multiclass",
        classes=EMOTIONS,
        source="CREMA-D, https://github.com/CheyneyComputerScience/CREMA-D",
        licence="Open Database License 1.0 (contents: Database Contents License 1.0)",
        parameters={**settings._asdict(), "partial": partial, "pictures": pictures},
    )
    with Preparation(out, card, workers) as prep:
        clips = official_clips()
        _note_strangers(prep, raw, clips)
        items = [_item(raw, pictures, clip.name, frame) for clip in clips]
        clips, items = _present(prep, clips, items, partial)
        items = [_silence_known_bad(prep, item, rate) for item in items]
        kept = prep.fill(
            items,
            bind(decode, settings=settings, lenient=partial),
            {"video": ((3, size, size), "uint8"), "audio": ((1, size, size), "float16")},
        )
        clips = [clips[i] for i in kept]
        prep.write("labels", np.array([clip.label for clip in clips], dtype=np.int64))
        _split(prep, clips)
        actors = np.array([int(clip.name.split("_")[0]) for clip in clips])
        prep.group("actor", actors)
        mean, std = (255 * np.array(v).reshape(3, 1, 1) for v in IMAGENET)
        prep.normalise("video", constants=(mean, std))
        prep.normalise("audio", axes=(0, 1, 2))
        return prep.finish()


def decode(item: Item, settings: Settings, lenient: bool) -> dict[str, NDArray[Any]]:
    """The two arrays of one clip.

    Raises:
        Skip, Refuse: a file of it cannot be used, ``lenient`` or not.
    """
    clip, wav, picture = item
    try:
        samples = np.zeros(1, np.float32) if wav is None else read_wav(wav, settings.rate)
        return {"video": _picture(picture, settings), "audio": spectrogram(samples, settings)}
    except BadFile as bad:
        verdict = Skip if lenient or clip == KNOWN_BAD else Refuse
        raise verdict(bad.path, bad.reason) from None


def spectrogram(samples: NDArray[np.float32], settings: Settings) -> NDArray[np.float16]:
    """Log power spectrogram of samples (T,), resized: float16 (1, size, size)."""
    from PIL import Image

    side = (settings.size, settings.size)
    image = Image.fromarray(log_power(samples, settings)).resize(side, Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float16)[np.newaxis]


def log_power(samples: NDArray[np.float32], settings: Settings) -> NDArray[np.float32]:
    """Samples (T,) -> float32 (window / 2 + 1 frequencies, times), natural logarithm."""
    from scipy.signal import spectrogram as power_spectrogram

    repeated = np.resize(samples, round(settings.rate * settings.seconds))
    _, _, power = power_spectrogram(
        repeated, settings.rate, nperseg=settings.window, noverlap=settings.overlap
    )
    return np.log(power + settings.log_floor).astype(np.float32)


def _picture(path: Path, settings: Settings) -> NDArray[np.uint8]:
    if path.suffix in (".flv", ".mp4"):
        second = FIRST_S if settings.frame == "first" else None
        return read_video_frame(path, settings.size, second)
    return read_image(path, settings.size)


def _picture_folder(raw: Path) -> str:
    if not (raw / "AudioWAV").is_dir():
        raise UserError(
            f"no folder AudioWAV in {raw}: give the folder of the official CREMA-D files, "
            "which also holds VideoFlash, VideoMP4 or Image-01-FPS"
        )
    for name in PICTURES:
        if (raw / name).is_dir():
            return name
    raise UserError(f"none of the folders {', '.join(PICTURES)} in {raw}: no pictures to read")


def _item(raw: Path, pictures: str, clip: str, frame: str) -> Item:
    picture = raw / pictures / f"{clip}{PICTURES[pictures]}"
    if picture.is_dir():
        frames = sorted(p for p in picture.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
        if frames:
            picture = frames[0 if frame == "first" else len(frames) // 2]
    return clip, raw / "AudioWAV" / f"{clip}.wav", picture


def _present(
    prep: Preparation, clips: list[Clip], items: list[Item], lenient: bool
) -> tuple[list[Clip], list[Item]]:
    """Clips with both files; of the others, every missing file is skipped or refused."""
    leave_out = prep.skip if lenient else prep.refuse
    kept = []
    for clip, (name, wav, picture) in zip(clips, items, strict=True):
        needed = [picture] if name == KNOWN_BAD else [wav, picture]
        missing = [path for path in needed if path is not None and not path.is_file()]
        for path in missing:
            leave_out(path, "missing")
        if not missing:
            kept.append((clip, (name, wav, picture)))
    return [clip for clip, _ in kept], [item for _, item in kept]


def _silence_known_bad(prep: Preparation, item: Item, rate: int) -> Item:
    clip, wav, picture = item
    if clip != KNOWN_BAD or wav is None:
        return item
    try:
        read_wav(wav, rate)
    except BadFile as bad:
        prep.note(f"{clip}: audio unusable ({bad.reason}), kept with silence: a known defect")
        return clip, None, picture
    prep.note(f"{clip}: known for unusable audio, but this copy could be read and is used")
    return item


def _note_strangers(prep: Preparation, raw: Path, clips: list[Clip]) -> None:
    official = {clip.name for clip in clips}
    strangers = sorted(p.name for p in (raw / "AudioWAV").glob("*.wav") if p.stem not in official)
    if strangers:
        prep.note(f"{len(strangers)} wav(s) that are no official clip ignored: {strangers}")


def _split(prep: Preparation, clips: list[Clip]) -> None:
    whole = 0
    for scheme in SCHEMES:
        part_of = np.array([clip.parts[scheme] for clip in clips])
        parts = {p: np.flatnonzero(part_of == p) for p in ("train", "val", "test")}
        empty = [part for part, rows in parts.items() if not len(rows)]
        if empty:
            prep.note(f"scheme {scheme} left out: no clip for {', '.join(empty)}")
            continue
        whole += 1
        prep.split(scheme, **{part: shuffled(rows, ORDER_SEED) for part, rows in parts.items()})
    if len(clips) < len(official_clips()):
        prep.stand_in(f"{len(clips):,} of {len(official_clips()):,} clips: not the whole data set")
    if not whole:
        raise UserError(f"{len(clips)} clips are too few: no split scheme has all three parts")
