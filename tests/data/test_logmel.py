"""Log-mel features against a formulation written out term by term."""

import cmath
import math

import numpy as np
import pytest

from kdrun.data.logmel import ENERGY_FLOOR, FilterBank, hz_to_mel, mel_to_hz
from kdrun.errors import ConfigError


def written_out(samples: np.ndarray, bank: FilterBank) -> list[list[float]]:
    """Window, discrete Fourier transform, triangles and logarithm as sums over single numbers."""
    low, high = (2595 * math.log10(1 + f / 700) for f in (bank.low, bank.high))
    edges = [low + (high - low) * k / (bank.mels + 1) for k in range(bank.mels + 2)]
    edges = [700 * (10 ** (mel / 2595) - 1) for mel in edges]
    rows = []
    start = 0
    while start + bank.window <= len(samples):
        taper = [
            0.54 - 0.46 * math.cos(2 * math.pi * n / (bank.window - 1)) for n in range(bank.window)
        ]
        frame = [samples[start + n] * taper[n] for n in range(bank.window)]
        energies = [0.0] * bank.mels
        for k in range(bank.bins // 2 + 1):
            value = sum(
                x * cmath.exp(-2j * math.pi * k * n / bank.bins) for n, x in enumerate(frame)
            )
            for band in range(bank.mels):
                weight = np.interp(k * bank.rate / bank.bins, edges[band : band + 3], [0, 1, 0])
                energies[band] += weight * abs(value) ** 2
        rows.append([math.log(max(energy, ENERGY_FLOOR)) for energy in energies])
        start += bank.hop
    return rows


def test_features_are_those_of_the_formula() -> None:
    bank = FilterBank(mels=5, window_ms=4, hop_ms=1.5)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 70)
    assert (bank.window, bank.hop, bank.bins) == (32, 12, 64)
    assert bank.features(samples) == pytest.approx(np.array(written_out(samples, bank)))


def test_the_usual_settings_at_8_khz() -> None:
    bank = FilterBank()
    assert (bank.window, bank.hop, bank.bins) == (200, 80, 512)
    assert bank.features(np.zeros(8000)).shape == (98, 40)


def test_the_mel_scale() -> None:
    assert hz_to_mel(1000.0) == pytest.approx(1000, abs=0.1)  # what defines the scale
    assert mel_to_hz(hz_to_mel(np.array([20.0, 440.0, 4000.0]))) == pytest.approx([20, 440, 4000])


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 3000.0])
def test_a_tone_is_loudest_in_its_own_band(frequency: float) -> None:
    bank = FilterBank()
    tone = np.sin(2 * np.pi * frequency * np.arange(2000) / bank.rate)
    loudest = bank.features(tone).mean(axis=0).argmax()
    peaks = mel_to_hz(np.linspace(hz_to_mel(bank.low), hz_to_mel(bank.high), 42))[1:-1]
    assert loudest == abs(peaks - frequency).argmin()


def test_silence_is_the_floor_and_too_few_samples_are_one_frame() -> None:
    bank = FilterBank()
    assert (bank.features(np.zeros(500)) == np.log(ENERGY_FLOOR)).all()
    assert bank.features(np.full(30, 0.5)).shape == (1, 40)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mels": 0}, "dataset.mels=0"),
        ({"mels": 400}, "dataset.mels=400"),
        ({"hop_ms": 0.01}, "dataset.hop_ms=0.01"),
        ({"window_ms": 0.1}, "dataset.window_ms=0.1"),
    ],
)
def test_settings_that_leave_nothing_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FilterBank(**settings)  # type: ignore[arg-type]
