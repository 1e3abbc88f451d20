"""Data sets that need no files: scikit-learn's digits and random patterns.

A source is a function named by `_target_` in configs/dataset. It takes plain keyword arguments and
receives `cache_root`, `split_seed` and `progress` if it declares them. It returns a RawDataset, or
anything that `custom.as_raw_dataset` accepts.
"""

import importlib.util
from pathlib import Path
from typing import Annotated

import numpy as np
import torch

from kdrun.config.readers import check_pixels
from kdrun.data.images import RawDataset, Split
from kdrun.data.memory import require_memory
from kdrun.data.splits import TEST_FRACTION, hold_out_test
from kdrun.errors import ConfigError
from kdrun.ranges import LARGEST_COUNT, Fraction, NotNegative, Pixels, Range, Seed, Steps
from kdrun.seeds import generator


def digits(*, test_fraction: Fraction = TEST_FRACTION, split_seed: int = 0) -> RawDataset:
    """scikit-learn's 1,797 handwritten digits, `[1, 8, 8]`, levels 0..16 scaled to 0..255.

    The source has no test split: `test_fraction` of each class is held out.
    """
    pixels, labels = _bundled_digits()
    images = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    train = Split(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))
    return hold_out_test(RawDataset(tuple("0123456789"), train), test_fraction, split_seed)


def _bundled_digits() -> tuple[np.ndarray, np.ndarray]:
    """(pixels `[1797, 64]`, labels `[1797]`) from scikit-learn's file.

    Importing `sklearn.datasets` takes seconds (scipy.stats, pandas), so it is only the fallback if
    the file has moved.
    """
    package = importlib.util.find_spec("sklearn")
    folders = [] if package is None else package.submodule_search_locations or []
    for folder in folders:
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            values = np.loadtxt(path, delimiter=",")
            return values[:, :-1], values[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels


def synthetic(
    *,
    num_classes: Annotated[int, Range(low=2, high=LARGEST_COUNT)] = 10,
    image_size: Pixels | list[Pixels] = 16,
    channels: Annotated[int, Range(low=1, high=1024)] = 3,
    train_size: Steps = 1000,
    test_size: Steps = 200,
    noise: NotNegative = 0.5,
    seed: Seed = 0,
) -> RawDataset:
    """Seeded random images: each class is a coarse random pattern plus noise.

    noise: standard deviation of the noise; the pattern's values are uniform in 0..1.
    """
    size = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    for name, value, low in (
        ("image_size", min(size) if len(size) == 2 else 0, 1),
        ("train_size", train_size, num_classes),
    ):
        if value < low:
            raise ConfigError(f"dataset.{name} must be at least {low}.")
    check_pixels((size[0], size[1]), "dataset.image_size")
    require_memory(
        train_size + test_size,
        (channels, size[0], size[1]),
        "Set a smaller dataset.image_size, dataset.train_size or dataset.test_size.",
    )
    coarse = torch.rand(num_classes, channels, 4, 4, generator=generator(seed, "prototypes"))
    prototypes = torch.nn.functional.interpolate(coarse, size=size, mode="nearest")

    def split(name: str, count: int) -> Split:
        stream = generator(seed, "images", name)
        targets = torch.randperm(count, generator=stream) % num_classes
        images = torch.empty(count, channels, *size, dtype=torch.uint8)
        for start in range(0, count, 1024):
            part = prototypes[targets[start : start + 1024]]
            part = part + noise * torch.randn(part.shape, generator=stream)
            images[start : start + 1024] = (part.clamp(0, 1) * 255).round().to(torch.uint8)
        return Split(images, targets)

    names = tuple(f"class{number}" for number in range(num_classes))
    return RawDataset(names, split("train", train_size), None, split("test", test_size))
