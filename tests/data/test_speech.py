"""Spoken digits from wav files: splits, groups, normalisation, and files that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
import torch
from data.speech_files import write_digits, write_wav

from kdrun.config.schema import DatasetConfig
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.images import RawDataset
from kdrun.data.logmel import FilterBank
from kdrun.data.speech import WindowedFrames, read_wav, speech_digits
from kdrun.errors import ConfigError, DataError

SMALL = {"mels": 12, "frames_before": 2, "frames_after": 1}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("fsdd") / "recordings")


@pytest.fixture
def copy(recordings: Path, tmp_path: Path) -> Path:
    """The recordings in a folder that a test may spoil."""
    for path in recordings.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def raw(recordings: Path) -> RawDataset:
    return speech_digits(root=str(recordings), **SMALL)


def opened(root: Path, val_fraction: float) -> Dataset:
    config = DatasetConfig(
        "speech_digits", "kdrun.data.speech.speech_digits", {"root": str(root), **SMALL}
    )
    return open_dataset(config, val_fraction, root / "cache")


def test_recordings_0_to_4_are_the_test_split(raw: RawDataset) -> None:
    assert raw.test is not None
    assert raw.test.groups is not None
    assert raw.train.groups is not None
    assert len(raw.train.groups.unique()) == len(raw.test.groups.unique()) == 100
    assert [metric.name for metric in raw.train.extra_metrics] == ["words"]
    assert raw.train.shape == (1, 4, 12)
    lengths = raw.train.groups.bincount().unique().tolist()
    assert lengths == [13, 14, 15]  # 1 + (samples - 200) // 80 of 1200, 1280 and 1360 samples


def test_held_out_speakers_are_the_test_split(raw: RawDataset, recordings: Path) -> None:
    unseen = speech_digits(root=str(recordings), **SMALL, test_speakers=["bo"])
    assert unseen.test is not None
    assert len(unseen.test) + len(unseen.train) == len(raw.test or ()) + len(raw.train)
    bank = FilterBank(mels=12)
    names = [f"{d}_ann_{n}.wav" for d in range(10) for n in range(10)]
    frames = [torch.from_numpy(bank.features(read_wav(recordings / n) / 32768)) for n in names]
    rows = torch.cat(frames)
    expected = (rows - rows.mean(0)) / rows.std(0, correction=0)
    assert isinstance(unseen.train.images, WindowedFrames)
    heard = unseen.train.images.gather(torch.arange(len(rows)))[:, 0, 2]
    assert torch.allclose(heard.double(), expected, atol=1e-5)
    assert unseen.fingerprint != raw.fingerprint
    for speakers in (["carl"], ["ann", "bo"], "bo"):
        with pytest.raises(ConfigError, match="speakers ann, bo"):
            speech_digits(root=str(recordings), test_speakers=speakers)


def test_a_frame_is_the_filterbank_of_its_samples_normalised_on_training_frames(
    raw: RawDataset, recordings: Path
) -> None:
    bank = FilterBank(mels=12)
    names = [f"{d}_{s}_{n}.wav" for d in range(10) for s in ("ann", "bo") for n in range(5, 10)]
    features = [bank.features(read_wav(recordings / name) / 32768) for name in names]
    every = np.concatenate(features)
    expected = (features[1] - every.mean(0)) / every.std(0)
    at = len(features[0]) + 3  # the fourth frame of the second training recording
    window = raw.train.gather(torch.tensor([at]))[0, 0]
    assert window.numpy() == pytest.approx(expected[1:5], abs=1e-5)
    assert raw.train.targets[at] == 0


def test_a_recordings_frames_are_never_in_two_splits(recordings: Path) -> None:
    data = opened(recordings, 0.3)
    assert data.val is not None
    assert data.train.groups is not None
    assert data.val.groups is not None
    train, val = (set(split.groups.tolist()) for split in (data.train, data.val))  # type: ignore[union-attr]
    assert not train & val
    assert len(train) + len(val) == 100
    for digit in range(10):  # each digit gives three of its ten
        assert len(data.val.groups[data.val.targets == digit].unique()) == 3


def test_reading_again_gives_the_same_and_settings_count(raw: RawDataset, recordings: Path) -> None:
    again = speech_digits(root=str(recordings.parent), **SMALL)  # found in recordings/
    assert again.fingerprint == raw.fingerprint
    assert torch.equal(again.train.in_memory(), raw.train.in_memory())
    other = speech_digits(root=str(recordings), **(SMALL | {"frames_after": 2}))
    assert other.fingerprint != raw.fingerprint


def test_a_missing_folder_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"free-spoken-digit-dataset .*fsdd"):
        speech_digits(root=str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="contains no recordings named"):
        speech_digits(root=str(tmp_path))


@pytest.mark.parametrize("spoil", ["cut", "text", "empty"])
def test_a_damaged_file_is_named(copy: Path, spoil: str) -> None:
    path = copy / "3_bo_7.wav"
    content = path.read_bytes()
    path.write_bytes({"cut": content[:-10], "text": b"no sound", "empty": b""}[spoil])
    with pytest.raises(DataError, match=r"3_bo_7.wav is damaged"):
        speech_digits(root=str(copy))


def test_another_rate_or_form_is_refused(copy: Path) -> None:
    write_wav(copy / "3_bo_7.wav", np.zeros(2000), rate=16000)
    with pytest.raises(DataError, match=r"16000 samples per second.*expected 8000"):
        speech_digits(root=str(copy))
    write_wav(copy / "3_bo_7.wav", np.zeros(2000), channels=2)
    with pytest.raises(DataError, match=r"2 channel\(s\)"):
        speech_digits(root=str(copy))


def test_other_names_and_missing_digits_are_refused(copy: Path) -> None:
    (copy / "three_bo_7.wav").write_bytes((copy / "3_bo_7.wav").read_bytes())
    with pytest.raises(DataError, match=r"three_bo_7\.wav is not named"):
        speech_digits(root=str(copy))
    (copy / "three_bo_7.wav").unlink()
    for number in range(5):
        for speaker in ("ann", "bo"):
            (copy / f"8_{speaker}_{number}.wav").unlink()
    with pytest.raises(DataError, match="The digits 8 have no test recordings"):
        speech_digits(root=str(copy))


def test_wrong_settings_are_refused(recordings: Path) -> None:
    with pytest.raises(ConfigError, match="frames_before"):
        speech_digits(root=str(recordings), frames_before=-1)


@pytest.mark.needs_data
def test_the_real_recordings(data_dir: Path) -> None:
    if not (data_dir / "fsdd" / "recordings").is_dir():
        pytest.skip("the recordings are not in KDRUN_TEST_DATA")
    raw = speech_digits(root=str(data_dir))
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (112911, 12326)
    assert raw.train.groups is not None
    assert len(raw.train.groups.unique()) == 2700
    sample = raw.train.gather(torch.arange(0, len(raw.train), 7))
    assert sample.shape[1:] == (1, 26, 40)
    assert abs(float(sample.mean())) < 0.02
    assert float(sample.std()) == pytest.approx(1, abs=0.05)
