"""Sources that need no files."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdrun.config.build import call
from kdrun.data.sources import _bundled_digits, digits, synthetic
from kdrun.errors import ConfigError


def test_digits_are_scikit_learns_scaled_to_bytes() -> None:
    raw = digits()
    assert raw.test is not None
    assert (len(raw.train), len(raw.test)) == (1438, 359)
    pixels, labels = load_digits(return_X_y=True)
    scaled = np.rint(pixels.reshape(-1, 8, 8) / 16 * 255)
    known = {(image.tobytes(), label) for image, label in zip(scaled, labels, strict=True)}
    for split in (raw.train, raw.test):
        for image, label in zip(split.in_memory(), split.targets.tolist(), strict=True):
            assert (image[0].numpy().astype(scaled.dtype).tobytes(), label) in known
    assert raw.train.in_memory().max() == 255
    share = torch.bincount(raw.test.targets) / torch.bincount(torch.tensor(labels))
    assert (share - 0.2).abs().max() < 0.005


def test_digits_test_images_follow_split_seed_and_fraction() -> None:
    first, other, larger = digits(), digits(split_seed=1), digits(test_fraction=0.5)
    assert first.test is not None
    assert other.test is not None
    assert larger.test is not None
    assert not torch.equal(first.test.in_memory(), other.test.in_memory())
    assert len(larger.test) == pytest.approx(1797 / 2, abs=10)


def test_synthetic_images_are_seeded_and_have_the_asked_form() -> None:
    settings = {"num_classes": 3, "image_size": [6, 9], "channels": 2, "train_size": 30}
    raw, again, other = (synthetic(**settings, seed=seed) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert raw.test is not None
    assert raw.train.shape == (2, 6, 9)
    assert (len(raw.train), len(raw.test)) == (30, 200)
    assert torch.bincount(raw.train.targets).tolist() == [10, 10, 10]
    assert torch.equal(raw.train.in_memory(), again.train.in_memory())
    assert not torch.equal(raw.train.in_memory(), other.train.in_memory())


def test_synthetic_classes_can_be_learnt() -> None:
    raw = synthetic(train_size=500, test_size=200)
    assert raw.test is not None
    centres = torch.stack(
        [raw.train.in_memory()[raw.train.targets == c].float().mean(0) for c in range(10)]
    )
    distance = torch.cdist(raw.test.in_memory().float().flatten(1), centres.flatten(1))
    assert (distance.argmin(1) == raw.test.targets).float().mean() > 0.9


@pytest.mark.parametrize(
    "wrong",
    [{"num_classes": 1}, {"channels": 0}, {"train_size": 5}, {"test_size": 0}, {"image_size": [3]}],
)
def test_synthetic_settings_are_checked(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"dataset.{name}.* must (be at least|have)"):
        call("kdrun.data.sources.synthetic", wrong, "dataset")


def test_digits_are_those_of_scikit_learn() -> None:
    pixels, labels = load_digits(return_X_y=True)
    found, classes = _bundled_digits()
    assert (found == pixels).all()
    assert (classes == labels).all()
