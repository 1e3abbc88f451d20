"""Made-up recordings in the form of the Free Spoken Digit Dataset."""

import wave
from pathlib import Path

import numpy as np


def write_wav(path: Path, samples: np.ndarray, rate: int = 8000, channels: int = 1) -> None:
    """A 16-bit file of samples in -1..1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def write_digits(folder: Path, numbers: range = range(10), seconds: float = 0.15) -> Path:
    """Recordings of two speakers: each digit is a tone of its own under noise."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0)
    for digit in range(10):
        for speaker in ("ann", "bo"):
            for number in numbers:
                time = np.arange(int(8000 * (seconds + 0.01 * (number % 3)))) / 8000
                tone = 0.4 * np.sin(2 * np.pi * (250 + 300 * digit) * time)
                samples = tone + 0.1 * noise.standard_normal(len(time)).clip(-3, 3)
                write_wav(folder / f"{digit}_{speaker}_{number}.wav", samples)
    return folder
