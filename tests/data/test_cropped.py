"""dataset.crop_ratio: networks see the centres of larger stored images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.config.augment import AugmentConfig
from kdrun.config.schema import DatasetConfig
from kdrun.data.cropped import CentreCropped, crop_splits, uncropped
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.images import RawDataset, Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.errors import DataError

SYNTHETIC = "kdrun.data.sources.synthetic"
FOLDER = "kdrun.data.imagefolder.imagefolder"


def made(tmp_path: Path, target: str = SYNTHETIC, **settings: object) -> Dataset:
    kwargs: dict = settings.pop("kwargs", {"image_size": 16, "train_size": 40, "test_size": 12})
    config = DatasetConfig("x", target, kwargs, **settings)  # type: ignore[arg-type]
    return open_dataset(config, 0.2, tmp_path / "cache")


def photos(folder: Path) -> Path:
    drawn = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(4):
                pixels = drawn.integers(256, size=(30, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


def test_the_networks_size_is_the_centre_of_a_larger_stored_one(tmp_path: Path) -> None:
    cropped, whole = made(tmp_path, crop_ratio=0.8), made(tmp_path)
    larger = made(tmp_path, kwargs={"image_size": 20, "train_size": 40, "test_size": 12})
    assert cropped.info == whole.info
    assert cropped.test.shape[1:] == (16, 16)
    for one, two in ((cropped.test, larger.test), (cropped.train, larger.train)):
        assert torch.equal(one.in_memory(), two.in_memory()[:, :, 2:18, 2:18])
    prints = {data.fingerprint for data in (cropped, whole, larger)}
    assert len(prints) == 3
    assert cropped.pixel_metadata == {"crop_ratio": 0.8}


@pytest.mark.parametrize("keep", [True, False])
def test_resized_crops_come_from_the_whole_stored_image(tmp_path: Path, keep: bool) -> None:
    data = made(tmp_path, crop_ratio=0.8)
    augment = AugmentConfig(crop="resized", scale=[1.0, 1.0], ratio=[1.0, 1.0])

    def images(augment: AugmentConfig) -> torch.Tensor:
        loader = TrainLoader(data.train, data.normalisation, 8, augment, 0, "cpu", resident=keep)
        assert loader.size == (16, 16)
        batch = next(loader.epoch(0))
        return torch.stack((batch.images, batch.for_teacher))

    squeezed, plain = images(augment)[0], images(AugmentConfig())[0]
    assert squeezed.shape == plain.shape
    assert not torch.equal(squeezed, plain)
    fixed = images(replace(augment, teacher_view="fixed"))
    assert torch.equal(fixed[0], squeezed)
    assert torch.equal(fixed[1], plain)


def test_image_files_are_stored_larger(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    kwargs = {"root": str(root), "image_size": 12}
    whole = made(tmp_path, FOLDER, kwargs=kwargs)
    cropped = made(tmp_path, FOLDER, kwargs=kwargs, crop_ratio=0.5)
    images = cropped.train.images
    assert isinstance(cropped.test.images, CentreCropped)
    assert uncropped(images).shape[2:] == (24, 24)
    assert cropped.info == whole.info
    assert cropped.fingerprint != whole.fingerprint
    chosen = replace(cropped.train, images=images).select(torch.tensor([1, 0]))
    assert uncropped(chosen.images).shape == (2, 3, 24, 24)


def test_without_a_size_the_stored_one_is_chosen_as_ever(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos")
    data = made(tmp_path, FOLDER, kwargs={"root": str(root)}, crop_ratio=0.5)
    assert data.info.image_size == (15, 20)


def test_images_smaller_than_the_size_are_refused() -> None:
    split = Split(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4) % 2)
    raw = RawDataset(("a", "b"), split, test=split)
    with pytest.raises(DataError, match=r"10×10 pixels out of images of 8×8: .*crop_ratio=1"):
        crop_splits(raw, {"image_size": 10}, 0.8)
