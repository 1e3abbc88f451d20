"""The Free Spoken Digit Dataset as acoustic frames.

Hinton, Vinyals and Dean 2015 (arXiv 1503.02531, section 4) distil acoustic models that classify a
frame with its context. Here the class of a frame is the spoken digit, and a recording is classified
by its frames together (`GroupError`).
"""

import hashlib
import re
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from kdrun.data.groups import GroupError
from kdrun.data.images import LazyImages, RawDataset, Split
from kdrun.data.logmel import FilterBank
from kdrun.data.measure import Progress
from kdrun.data.paths import expanded
from kdrun.errors import AbsentDataError, ConfigError, DataError
from kdrun.ranges import Range
from kdrun.types import Normalisation

RATE = 8000
TEST_NUMBERS = range(5)  # the authors' test split: recordings 0 to 4 of each speaker and digit
NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[^_]+)_(?P<number>[0-9]+)\.wav")
# Below `root`: the recordings themselves, or the layouts of the archive and of a clone.
PLACES = ("", "recordings", "fsdd/recordings", "free-spoken-digit-dataset/recordings")
VERSION = 1  # part of the fingerprint: increment it if the features change, to retrain teachers


@dataclass(frozen=True)
class Recording:
    """One file. number: counts the recordings of a speaker and digit. samples: 16 bits `[n]`."""

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
    test_speakers: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> RawDataset:
    """Windows `[1, frames_before + 1 + frames_after, mels]` of float32, one per `hop_ms`.

    Each coefficient is standardised over all frames of the training recordings. The frames of a
    recording form a group, so they stay in one split. The test split is recordings 0 to 4 of each
    speaker and digit, or, with `test_speakers`, all recordings of these speakers. The defaults
    follow the paper: 26 frames of 40 coefficients, 10 ms apart, with the class of the 21st.

    root: a folder with `<digit>_<speaker>_<number>.wav` (8 kHz, mono, 16 bit), or one that contains
    `recordings/`, `fsdd/recordings/` or `free-spoken-digit-dataset/recordings/`.

    Raises DataError for an unusable folder or file, ConfigError for an unknown speaker.
    """
    if frames_before < 0 or frames_after < 0:
        raise ConfigError("dataset.frames_before and dataset.frames_after must not be negative.")
    bank = FilterBank(RATE, mels, window_ms=window_ms, hop_ms=hop_ms)
    recordings = _read_all(_folder(expanded(root, "dataset.root")), progress)
    features = [torch.from_numpy(bank.features(r.samples / 32768.0)) for r in recordings]
    test = _is_test(recordings, test_speakers)
    _check(recordings, test)
    train = torch.cat([frames for frames, held in zip(features, test, strict=True) if not held])
    mean, std = train.mean(0), train.std(0, correction=0).clamp_min(1e-8)
    features = [((frames - mean) / std).float() for frames in features]

    settings: tuple[Any, ...] = (mels, frames_before, frames_after, window_ms, hop_ms)
    if test_speakers is not None:
        settings = (*settings, sorted(test_speakers))

    def split(held: bool) -> Split:
        members = [position for position, is_test in enumerate(test) if is_test is held]
        lengths = torch.tensor([len(features[position]) for position in members])
        digits = torch.tensor([recordings[position].digit for position in members])
        words = torch.arange(len(members)).repeat_interleave(lengths)
        return Split(
            WindowedFrames([features[i] for i in members], frames_before, frames_after),
            digits.repeat_interleave(lengths),
            words,
            (GroupError("word", words),),
        )

    return RawDataset(
        tuple("0123456789"),
        split(False),
        None,
        split(True),
        _fingerprint(recordings, settings),
        Normalisation((0.0,), (1.0,)),
    )


class WindowedFrames(LazyImages):
    """One image `[1, before + 1 + after, D]` for each frame of each recording.

    recordings: `[frames, D]` float32 each. Windows are padded by repeating the first or last frame
    of their recording. They overlap, so only the frames are stored and windows are cut on access.
    """

    def __init__(self, recordings: list[Tensor], before: int, after: int) -> None:
        padded = [
            torch.cat([frames[:1].expand(before, -1), frames, frames[-1:].expand(after, -1)])
            for frames in recordings
        ]
        self.rows = torch.cat(padded)
        lengths = torch.tensor([len(frames) for frames in recordings])
        first = (
            torch.tensor([len(frames) for frames in padded]).cumsum(0) - lengths - before - after
        )
        self.starts = torch.cat(
            [torch.arange(n) + i for n, i in zip(lengths.tolist(), first.tolist(), strict=True)]
        )
        self.context = torch.arange(before + 1 + after)
        self.shape = (len(self.starts), 1, len(self.context), self.rows.shape[1])
        self.dtype = self.rows.dtype

    def gather(self, index: Tensor) -> Tensor:
        return self.rows[self.starts[index][:, None] + self.context].unsqueeze(1)


def _folder(root: Path) -> Path:
    for place in PLACES:
        if root.is_dir() and any(NAME.fullmatch(p.name) for p in (root / place).glob("*.wav")):
            return root / place
    raise AbsentDataError(
        f"dataset.root={root} contains no recordings named <digit>_<speaker>_<number>.wav, nor "
        "do its folders recordings/ and fsdd/recordings/. Get the Free Spoken Digit Dataset: git "
        f"clone https://github.com/Jakobovski/free-spoken-digit-dataset {root / 'fsdd'}"
    )


def _read_all(folder: Path, progress: Progress | None) -> list[Recording]:
    """All recordings, sorted by digit, speaker and number."""
    recordings = []
    files = sorted(path for path in folder.glob("*.wav") if not path.name.startswith("."))
    for done, path in enumerate(files):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise DataError(
                f"{path} is not named <digit>_<speaker>_<number>.wav: rename it or remove it."
            )
        number = int(match["number"])
        samples = read_wav(path)
        recordings.append(Recording(int(match["digit"]), match["speaker"], number, samples))
        if progress is not None:
            progress("reading recordings", done + 1, len(files))
    return sorted(recordings, key=lambda r: (r.digit, r.speaker, r.number))


def read_wav(path: Path) -> np.ndarray:
    """The 16-bit samples `[n]` of a mono recording at 8 kHz. Raises DataError otherwise."""
    try:
        with wave.open(str(path), "rb") as file:
            audio_format = (file.getframerate(), file.getnchannels(), 8 * file.getsampwidth())
            expected = file.getnframes() * file.getnchannels() * file.getsampwidth()
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DataError(
            f"{path} is damaged ({error or 'it ends too early'}): replace it."
        ) from None
    if audio_format != (RATE, 1, 16):
        raise DataError(
            "{} has {} samples per second, {} channel(s) and {} bits; ".format(path, *audio_format)
            + f"expected {RATE}, 1 and 16. Convert it, e.g. sox in.wav -r {RATE} -c 1 -b 16 out.wav"
        )
    if len(content) != expected or not content:
        raise DataError(f"{path} is damaged (samples are missing): replace it.")
    return np.frombuffer(content, "<i2")


def _is_test(recordings: list[Recording], speakers: Sequence[str] | None) -> list[bool]:
    """Whether each recording is in the test split. Raises ConfigError for speakers without any."""
    if speakers is None:
        return [recording.number in TEST_NUMBERS for recording in recordings]
    known = sorted({recording.speaker for recording in recordings})
    if isinstance(speakers, str) or not speakers or not set(speakers) < set(known):
        raise ConfigError(
            f"dataset.test_speakers={speakers} must be a list of some, not all, of the speakers "
            f"{', '.join(known)}, such as [{known[0]}]."
        )
    return [recording.speaker in speakers for recording in recordings]


def _check(recordings: list[Recording], test: list[bool]) -> None:
    """Raise DataError unless every digit has training and test recordings."""
    for what, held in (("training", False), ("test", True)):
        digits = {
            recording.digit
            for recording, is_test in zip(recordings, test, strict=True)
            if is_test is held
        }
        missing = sorted(set(range(10)) - digits)
        if missing:
            names = ", ".join(map(str, missing))
            raise DataError(f"The digits {names} have no {what} recordings: add some.")


def _fingerprint(recordings: list[Recording], settings: tuple[Any, ...]) -> str:
    """Hash samples and settings; the last bits of features depend on the machine."""
    state = hashlib.sha256(repr((VERSION, settings)).encode())
    for recording in recordings:
        header = (recording.digit, recording.speaker, recording.number, len(recording.samples))
        state.update(repr(header).encode())
        state.update(recording.samples.tobytes())
    return state.hexdigest()
