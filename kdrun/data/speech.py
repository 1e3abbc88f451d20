"""The Free Spoken Digit Dataset as acoustic frames: spoken digits for plain classifiers.

Hinton, Vinyals and Dean 2015 (arXiv 1503.02531, section 4) distil acoustic models that see a frame
with its neighbours and name its class. Here the class of a frame is the digit that is spoken, and
the word of a recording is the one its frames favour together.
"""

import hashlib
import re
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from kdrun.data.group_error import GroupError
from kdrun.data.images import RawDataset, Split
from kdrun.data.logmel import FilterBank
from kdrun.data.measure import Progress
from kdrun.data.paths import expanded
from kdrun.data.windows import WindowedFrames
from kdrun.errors import AbsentDataError, ConfigError, DataError
from kdrun.ranges import Range
from kdrun.types import Normalisation

RATE = 8000
TEST_NUMBERS = range(
    5
)  # the data set's own convention: recordings 0 to 4 of each speaker and digit
NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[^_]+)_(?P<number>[0-9]+)\.wav")
# `root` itself, and where the archive or a clone puts the recordings
PLACES = ("", "recordings", "fsdd/recordings", "free-spoken-digit-dataset/recordings")
VERSION = 1  # of the features: raise it when they change, so that teachers are trained again


@dataclass(frozen=True)
class Recording:
    """One file: which digit, by whom, its number, and its 16-bit samples."""

    digit: int
    speaker: str
    number: int
    samples: np.ndarray


def speech_digits(
    *,
    root: str = "data",
    mels: Annotated[int, Range(low=1, high=1024)] = 40,
    frames_before: Annotated[int, Range(low=0, high=1000)] = 20,
    frames_after: Annotated[int, Range(low=0, high=1000)] = 5,
    window_ms: Annotated[float, Range(above=0, high=10_000)] = 25.0,
    hop_ms: Annotated[float, Range(above=0, high=10_000)] = 10.0,
    progress: Progress | None = None,
) -> RawDataset:
    """Frames `[1, frames_before + 1 + frames_after, mels]` of float32, one for each `hop_ms`.

    root: the folder of `<digit>_<speaker>_<number>.wav`, 8 kHz, mono, 16 bit; or one that holds
    `recordings/`, `fsdd/recordings/` or `free-spoken-digit-dataset/recordings/`.
    Each coefficient is brought to mean 0 and deviation 1 over all frames of the training
    recordings. The recordings 0 to 4 of each speaker and digit are the test split; a recording's
    frames form one group, so that all of them are in one split.
    Defaults: 26 frames of 40 coefficients, 10 ms apart, the class being that of the 21st, as in the
    paper. Raises DataError for a folder or a file that cannot be used.
    """
    if frames_before < 0 or frames_after < 0:
        raise ConfigError("dataset.frames_before and dataset.frames_after must not be negative.")
    bank = FilterBank(RATE, mels, window_ms=window_ms, hop_ms=hop_ms)
    recordings = _read_all(_folder(expanded(root, "dataset.root")), progress)
    features = [torch.from_numpy(bank.features(one.samples / 32768.0)) for one in recordings]
    test = [one.number in TEST_NUMBERS for one in recordings]
    _check(recordings, test)
    trained = torch.cat([frames for frames, held in zip(features, test, strict=True) if not held])
    mean, std = trained.mean(0), trained.std(0, correction=0).clamp_min(1e-8)
    features = [((frames - mean) / std).float() for frames in features]

    def split(held: bool) -> Split:
        chosen = [at for at, is_test in enumerate(test) if is_test is held]
        lengths = torch.tensor([len(features[at]) for at in chosen])
        digits = torch.tensor([recordings[at].digit for at in chosen])
        words = torch.arange(len(chosen)).repeat_interleave(lengths)
        return Split(
            WindowedFrames([features[at] for at in chosen], frames_before, frames_after),
            digits.repeat_interleave(lengths),
            words,
            (GroupError("word", words),),
        )

    return RawDataset(
        tuple("0123456789"),
        split(False),
        None,
        split(True),
        _fingerprint(recordings, (mels, frames_before, frames_after, window_ms, hop_ms)),
        Normalisation((0.0,), (1.0,)),
    )


def _folder(root: Path) -> Path:
    for place in PLACES:
        if root.is_dir() and any(NAME.fullmatch(p.name) for p in (root / place).glob("*.wav")):
            return root / place
    raise AbsentDataError(
        f"dataset.root={root} holds no recordings named <digit>_<speaker>_<number>.wav, neither "
        "itself nor in recordings/ or fsdd/recordings/. Get the Free Spoken Digit Dataset: git "
        f"clone https://github.com/Jakobovski/free-spoken-digit-dataset {root / 'fsdd'}"
    )


def _read_all(folder: Path, progress: Progress | None) -> list[Recording]:
    """All recordings by digit, speaker and number."""
    found = []
    files = sorted(path for path in folder.glob("*.wav") if not path.name.startswith("."))
    for done, path in enumerate(files):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise DataError(
                f"{path} is not named <digit>_<speaker>_<number>.wav: rename it or take it away."
            )
        number = int(match["number"])
        found.append(Recording(int(match["digit"]), match["speaker"], number, read_wav(path)))
        if progress is not None:
            progress("reading recordings", done + 1, len(files))
    return sorted(found, key=lambda one: (one.digit, one.speaker, one.number))


def read_wav(path: Path) -> np.ndarray:
    """The 16-bit samples `[n]` of a mono recording at 8 kHz; DataError for any other file."""
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            expected = file.getnframes() * file.getnchannels() * file.getsampwidth()
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(
            f"{path} is damaged ({error or 'it ends too early'}): replace it."
        ) from None
    if form != (RATE, 1, 16):
        raise DataError(
            f"{path} has {form[0]} samples per second, {form[1]} channel(s) and {form[2]} bits; "
            f"expected {RATE}, 1 and 16. Convert it, e.g. sox in.wav -r {RATE} -c 1 -b 16 out.wav"
        )
    if len(content) != expected or not content:
        raise DataError(f"{path} is damaged (samples are missing): replace it.")
    return np.frombuffer(content, "<i2")


def _check(recordings: list[Recording], test: list[bool]) -> None:
    """Every digit must be there to learn and to measure."""
    for what, held in (("training recordings, numbered 5 and up", False), ("test ones, 0-4", True)):
        digits = {
            one.digit for one, is_test in zip(recordings, test, strict=True) if is_test is held
        }
        missing = sorted(set(range(10)) - digits)
        if missing:
            names = ", ".join(map(str, missing))
            raise DataError(f"The digits {names} have no {what}: the data set is not complete.")


def _fingerprint(recordings: list[Recording], settings: tuple[float, ...]) -> str:
    """Of the samples and settings, not of the features, whose last bits depend on the machine."""
    state = hashlib.sha256(repr((VERSION, settings)).encode())
    for one in recordings:
        state.update(repr((one.digit, one.speaker, one.number, len(one.samples))).encode())
        state.update(one.samples.tobytes())
    return state.hexdigest()
