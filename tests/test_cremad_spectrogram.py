"""CREMA-D: the spectrogram from its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from cremad_kit import SETTINGS, tone

from miles_repro.data import cremad
from miles_repro.data.media import read_wav


def log_power(samples: np.ndarray) -> np.ndarray:
    return cremad.log_power(samples, SETTINGS)


def spectrogram(samples: np.ndarray) -> np.ndarray:
    return cremad.spectrogram(samples, SETTINGS)


def test_spectrogram_has_the_papers_size_and_low_frequencies_first() -> None:
    power = log_power(tone(1000))
    assert power.shape == (257, 299)
    assert set(power.argmax(axis=0)) == {32}  # 1000 Hz / (16000 Hz / 512)


def test_spectrogram_values_from_the_definition() -> None:
    from scipy.signal.windows import tukey

    samples = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    window = tukey(512, 0.25, sym=False)
    at = 7 * (512 - 353)
    piece = samples[at : at + 512].astype(np.float64)
    power = np.abs(np.fft.rfft((piece - piece.mean()) * window)) ** 2
    power /= SETTINGS.rate * (window**2).sum()
    power[1:-1] *= 2  # one-sided
    np.testing.assert_allclose(log_power(samples)[:, 7], np.log(power + 1e-12), rtol=0, atol=1e-2)


def test_short_audio_is_repeated_and_long_audio_cut() -> None:
    one = tone(440, seconds=1.0)
    np.testing.assert_array_equal(log_power(one), log_power(np.tile(one, 3)))
    long = np.concatenate([tone(440), tone(3000)])
    np.testing.assert_array_equal(log_power(long), log_power(tone(440)))


def test_silence_is_finite() -> None:
    out = spectrogram(np.zeros(1, np.float32))
    assert out.shape == (1, 224, 224)
    assert out.dtype == np.float16
    np.testing.assert_allclose(out.astype(float), np.log(1e-12), rtol=1e-3)


def test_resizing_keeps_place_and_level() -> None:
    out = spectrogram(tone(4000)).astype(np.float32)[0]
    assert abs(int(out.mean(axis=1).argmax()) - 128 * 224 / 257) <= 1
    whole = log_power(tone(4000))
    assert abs(out.mean() - whole.mean()) < 0.05


def test_other_rates_and_stereo_are_brought_to_16_khz_mono(tmp_path: Path) -> None:
    t = np.arange(44_100) / 44_100
    left = 0.5 * np.sin(2 * np.pi * 1000 * t)
    soundfile.write(tmp_path / "a.wav", np.stack([left, 0 * left], axis=1), 44_100)
    samples = read_wav(tmp_path / "a.wav", 16_000)
    assert samples.shape == (16_000,)
    assert abs(np.abs(samples[2000:-2000]).max() - 0.25) < 0.01
    assert np.abs(np.fft.rfft(samples)).argmax() == 1000
