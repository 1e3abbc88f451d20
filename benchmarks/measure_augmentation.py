"""Time of the augmentation operations: whole batches against torchvision's, image by image.

    python benchmarks/measure_augmentation.py [threads]

Prints milliseconds per batch, the best of several repetitions, of one batch of small images and one
of photographs, and of whole batches of `TrainLoader` under each policy.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from kdrun.config.augment import AugmentConfig
from kdrun.data.augment import geometry
from kdrun.data.augment.colours import _library
from kdrun.data.augment.policies import NUMBER, Step, run
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.types import Normalisation

SHAPES = ((128, 3, 32), (16, 3, 224))  # images, channels, side
REPEATS = 7
POLICIES = {
    "crop_flip": AugmentConfig(4, True),
    "resized crop": AugmentConfig(flip=True, crop="resized"),
    "randaugment": AugmentConfig(4, True, policy="randaugment"),
    "autoaugment": AugmentConfig(4, True, policy="autoaugment"),
    "trivialaugment": AugmentConfig(4, True, policy="trivialaugment"),
    "timm_randaugment": AugmentConfig(4, True, policy="timm_randaugment", magnitude_std=0.5),
}


def best(work: Callable[[], object]) -> float:
    """Milliseconds of the fastest repetition."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start))
    return min(times)


def show(name: str, ours: float, theirs: float) -> None:
    print(f"  {name:16} {ours:8.2f} ms batched {theirs:8.2f} ms by image {theirs / ours:6.1f}x")


def _by_pil(kind: Image.Resampling) -> Callable[[torch.Tensor, float], object]:
    """timm's rotation of one image, from and to a tensor."""

    def rotate(pixels: torch.Tensor, degrees: float) -> object:
        image = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        return torch.from_numpy(np.array(image.rotate(degrees, kind, fillcolor=(128, 128, 128))))

    return rotate


def operations(count: int, channels: int, side: int) -> None:
    library = _library()
    pixels = torch.randint(256, (count, channels, side, side), dtype=torch.uint8)
    factor = torch.rand(count).double() * 1.8 + 0.1
    degrees = torch.rand(count).double() * 60 - 30
    boxes = torch.tensor([[side // 8, side // 8, side // 2, side // 2]] * count)
    cases = {
        "brightness": (library.adjust_brightness, factor),
        "color": (library.adjust_saturation, factor),
        "contrast": (library.adjust_contrast, factor),
        "sharpness": (library.adjust_sharpness, factor),
        "rotate": (library.rotate, degrees),
        "equalize": (lambda i, s: library.equalize(i), factor),
        "rotate_bilinear": (_by_pil(Image.Resampling.BILINEAR), degrees),
        "rotate_bicubic": (_by_pil(Image.Resampling.BICUBIC), degrees),
    }
    for name, (single, strengths) in cases.items():
        values = strengths.tolist()
        steps = [Step(torch.full((count,), NUMBER[name]), strengths)]
        ours = best(lambda: run(pixels.clone(), steps))  # noqa: B023
        theirs = best(lambda: [single(i, s) for i, s in zip(pixels, values, strict=True)])  # noqa: B023
        show(name, ours, theirs)
    size = (side, side)
    bilinear = torch.zeros(count, dtype=torch.bool)
    ours = best(lambda: geometry.resized_crop(pixels, boxes, size, bilinear))
    theirs = best(
        lambda: [
            library.resized_crop(i, *box, [side, side], antialias=True)
            for i, box in zip(pixels, boxes.tolist(), strict=True)
        ]
    )
    show("resized crop", ours, theirs)


def loaders(count: int, channels: int, side: int) -> None:
    pixels = torch.randint(256, (4 * count, channels, side, side), dtype=torch.uint8)
    split = Split(pixels, torch.arange(4 * count) % 10)
    constants = Normalisation((0.5,) * channels, (0.2,) * channels)
    for name, augment in POLICIES.items():
        loader = TrainLoader(split, constants, count, augment, 0, "cpu", resident=True)
        milliseconds = best(lambda: list(loader.epoch(0))) / 4  # noqa: B023
        rate = 1000 * count / milliseconds
        print(f"  {name:16} {milliseconds:8.2f} ms per batch, {rate:9,.0f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("threads", type=int, nargs="?", default=1)
    torch.set_num_threads(parser.parse_args().threads)
    for shape in SHAPES:
        print("{} images of {}x{side}x{side}".format(*shape[:2], side=shape[2]))
        operations(*shape)
        loaders(*shape)


if __name__ == "__main__":
    main()
