"""Log-mel filterbank features of speech: log energy per mel band and frame.

The bands are triangles, evenly spaced on the mel scale of the HTK book (Young et al. 2006, The HTK
Book for HTK 3.4, section 5.4): mel(f) = 2595 · log10(1 + f / 700), f in Hz. Frames follow speech
recognition practice: windows of 25 ms every 10 ms (Hinton et al. 2012, Deep Neural Networks for
Acoustic Modeling in Speech Recognition, IEEE Signal Processing Magazine 29(6)).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdrun.errors import ConfigError

Array = NDArray[np.float64]

# About the power that 16-bit quantisation noise puts into one spectral bin of a 25 ms window at
# 8 kHz: (2^-15)^2 / 12 per sample times the sum of the squared window, 80.
ENERGY_FLOOR = 1e-8


@dataclass(frozen=True)
class FilterBank:
    """Settings of the features; frequencies in Hz, times in milliseconds.

    rate: samples per second. mels: number of bands. low, high: lower edge of the lowest band and
    upper edge of the highest. window_ms, hop_ms: frame length, and distance of frame starts.
    Raises ConfigError for settings that leave a band, a frame or a hop without samples.
    """

    rate: int = 8000
    mels: int = 40
    low: float = 20.0
    high: float = 4000.0
    window_ms: float = 25.0
    hop_ms: float = 10.0

    def __post_init__(self) -> None:
        if self.window < 2 or self.hop < 1:
            raise ConfigError(
                f"dataset.window_ms={self.window_ms:g} and dataset.hop_ms={self.hop_ms:g} must be "
                f"at least 2 samples and 1 sample long, at {self.rate} samples per second."
            )
        if self.mels < 1 or not self.filters().any(axis=0).all():
            raise ConfigError(
                f"dataset.mels={self.mels} must be at least 1, and small enough that each band "
                f"contains a spectral bin ({self.rate / self.bins:.1f} Hz wide): 40 is usual."
            )

    @property
    def window(self) -> int:
        """Samples per frame."""
        return round(self.rate * self.window_ms / 1000)

    @property
    def hop(self) -> int:
        """Samples between frame starts."""
        return round(self.rate * self.hop_ms / 1000)

    @property
    def bins(self) -> int:
        """FFT size: a power of two, at least twice the window.

        Zero padding gives the narrow low bands several bins.
        """
        return 1 << (2 * self.window - 1).bit_length()

    def filters(self) -> Array:
        """`[bins // 2 + 1, mels]` weights: triangles of height 1 between neighbouring peaks."""
        edges = mel_to_hz(np.linspace(hz_to_mel(self.low), hz_to_mel(self.high), self.mels + 2))
        frequency = np.arange(self.bins // 2 + 1)[:, None] * self.rate / self.bins
        left, peak, right = edges[:-2], edges[1:-1], edges[2:]
        rise = (frequency - left) / (peak - left)
        fall = (right - frequency) / (right - peak)
        return np.maximum(0.0, np.minimum(rise, fall))

    def features(self, samples: Array) -> Array:
        """Natural log band energies `[frames, mels]` of samples `[n]` in -1..1.

        Frame t starts at sample t · hop, under a Hamming window. An incomplete last frame is
        dropped; a recording shorter than one window is zero-padded. Energies are clamped to
        ENERGY_FLOOR.
        """
        missing = self.window - len(samples)
        if missing > 0:
            samples = np.concatenate([samples, np.zeros(missing)])
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop]
        spectrum = np.fft.rfft(frames * np.hamming(self.window), self.bins)
        energy = np.square(np.abs(spectrum)) @ self.filters()
        return np.log(np.maximum(energy, ENERGY_FLOOR))


def hz_to_mel(frequency: float | Array) -> Array:
    """Convert Hz to mel."""
    return np.asarray(2595.0 * np.log10(1.0 + np.asarray(frequency) / 700.0))


def mel_to_hz(pitch: float | Array) -> Array:
    """Convert mel to Hz."""
    return np.asarray(700.0 * (10.0 ** (np.asarray(pitch) / 2595.0) - 1.0))
