"""Reading wav files with a verdict on each, resampling, mel spectrograms and MFCCs.

The mel filters and the framing come from ``transformers.audio_utils`` (pure NumPy, kept equal to
librosa and torchaudio by its authors), reading from soundfile, resampling and the cosine transform
from SciPy.
"""

from __future__ import annotations

import struct
import warnings
from functools import lru_cache
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from miles_repro.data.filling import Refuse, Skip

Wave = NDArray[np.float32]


def read_wav(path: Path, rate: int) -> Wave:
    """A mono recording as float32 in [-1, 1], resampled to ``rate`` samples a second.

    Raises:
        Skip: missing, truncated, unreadable or empty.
        Refuse: more than one channel.
    """
    import soundfile

    try:
        with path.open("rb") as file:
            head = file.read(8)
        if len(head) == 8 and head[:4] == b"RIFF":
            promised = struct.unpack("<I", head[4:])[0] + 8
            if path.stat().st_size < promised < 2**32:  # streams write a size of 2^32 - 1
                raise Skip(path, "truncated wav")
        wave, found = soundfile.read(path, dtype="float32", always_2d=True)
    except FileNotFoundError:
        raise Skip(path, "missing wav") from None
    except soundfile.LibsndfileError:
        raise Skip(path, "unreadable wav") from None
    if wave.shape[1] != 1:
        raise Refuse(path, f"{wave.shape[1]} channels, one was expected")
    if not len(wave):
        raise Skip(path, "empty wav")
    return resample(wave[:, 0], found, rate)


def resample(wave: Wave, rate: int, to: int) -> Wave:
    """The signal at another sample rate (polyphase filter)."""
    if rate == to:
        return wave
    from scipy.signal import resample_poly

    common = gcd(rate, to)
    return resample_poly(wave, to // common, rate // common).astype(np.float32)


def mel_spectrogram(
    wave: Wave, rate: int, window: int, hop: int, n_mels: int, center: bool
) -> NDArray[np.float32]:
    """Power in ``n_mels`` bands (HTK scale, not normalised, 0 Hz to rate / 2) per frame.

    Args:
        wave: (samples,), any length.
        window: Hann window and transform length in samples.
        hop: samples between frames.
        center: frame t is centred on sample t * hop of the signal, mirrored at its ends, as
            torchaudio's MelSpectrogram does; otherwise frames lie inside the signal.

    Returns:
        (n_mels, frames).
    """
    from transformers.audio_utils import spectrogram

    shortest = window // 2 + 1 if center else window
    if len(wave) < shortest:
        wave = np.pad(wave, (0, shortest - len(wave)))
    hann, filters = _hann_and_filters(rate, window, n_mels)
    return spectrogram(
        wave,
        hann,
        frame_length=window,
        hop_length=hop,
        power=2.0,
        center=center,
        pad_mode="reflect",
        mel_filters=filters,
        mel_floor=0.0,
    ).astype(np.float32)


def mfcc(
    wave: Wave, rate: int, window: int, hop: int, n_mels: int, coefficients: int
) -> NDArray[np.float32]:
    """Mel-frequency cepstral coefficients: orthonormal cosine transform of the log mel power.

    Returns:
        (frames, coefficients).
    """
    from scipy.fft import dct

    power = mel_spectrogram(wave, rate, window, hop, n_mels, center=False)
    return dct(np.log(power + 1e-10), type=2, axis=0, norm="ortho")[:coefficients].T


@lru_cache(maxsize=4)
def _hann_and_filters(
    rate: int, window: int, n_mels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from transformers.audio_utils import mel_filter_bank, window_function

    with warnings.catch_warnings():
        # at 96 and more bands the lowest are narrower than a bin and stay empty, as in torchaudio
        warnings.simplefilter("ignore")
        filters = mel_filter_bank(window // 2 + 1, n_mels, 0.0, rate / 2, rate, None, "htk")
    return window_function(window, "hann"), filters
