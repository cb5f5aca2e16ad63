"""Mel spectrograms and MFCCs of a recording.

Mel filters and framing come from ``transformers.audio_utils`` (NumPy only, kept equal to librosa
and torchaudio by its authors), the cosine transform from SciPy.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from miles_repro.errors import UserError

Wave = NDArray[np.float32]


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
    shortest = window // 2 + 1 if center else window
    if len(wave) < shortest:
        wave = np.pad(wave, (0, shortest - len(wave)))
    hann, filters = _hann_and_filters(rate, window, n_mels)
    return (
        _audio_utils()
        .spectrogram(
            wave,
            hann,
            frame_length=window,
            hop_length=hop,
            power=2.0,
            center=center,
            pad_mode="reflect",
            mel_filters=filters,
            mel_floor=0.0,
        )
        .astype(np.float32)
    )


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


def _audio_utils() -> ModuleType:
    try:
        from transformers import audio_utils
    except ImportError:
        raise UserError(
            "wav files need the package transformers: pip install 'miles-repro[data]'"
        ) from None
    return audio_utils


@lru_cache(maxsize=4)
def _hann_and_filters(
    rate: int, window: int, n_mels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    utils = _audio_utils()
    with warnings.catch_warnings():
        # at 96 and more bands the lowest are narrower than a bin and stay empty, as in torchaudio
        warnings.simplefilter("ignore")
        filters = utils.mel_filter_bank(window // 2 + 1, n_mels, 0.0, rate / 2, rate, None, "htk")
    return utils.window_function(window, "hann"), filters
