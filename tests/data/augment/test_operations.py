"""Each operation equals torchvision's function at fixed strengths, image by image."""

import math
from collections.abc import Callable

import pytest
import torch
from data.augment.pictures import images
from torch import Tensor

from kdrun.data.augment import colours, geometry
from kdrun.data.augment.colours import _library

F = _library()
from torchvision.transforms import InterpolationMode  # noqa: E402

SHAPES = [(3, 32, 32), (1, 8, 8), (3, 37, 23), (1, 2, 5)]
FACTORS = (0.0, 0.1, 0.73, 1.0, 1.27, 1.99)


def affine(pixels: Tensor, shift: tuple[int, int] = (0, 0), **more: object) -> Tensor:
    settings: dict = {"angle": 0.0, "scale": 1.0, "shear": [0.0, 0.0], **more}
    moved: Tensor = F.affine(pixels, translate=list(shift), **settings)
    return moved


def sheared(x: float, y: float) -> dict:
    return {"shear": [math.degrees(math.atan(x)), math.degrees(math.atan(y))], "center": [0, 0]}


SIGNED = (-0.99, -0.3, -0.09, 0.0, 0.09, 0.3)
SHIFTS = (-32.0, -4.35, -1.0, 0.9, 5.0, 14.5)
# (operation, torchvision's, strengths, largest difference, share of differing values)
CASES: dict[str, tuple[Callable, Callable, tuple[float, ...], int, float]] = {
    "brightness": (colours.brightness, F.adjust_brightness, FACTORS, 0, 0),
    "color": (colours.saturation, F.adjust_saturation, FACTORS, 1, 0.02),  # sums fused there
    "contrast": (colours.contrast, F.adjust_contrast, FACTORS, 1, 0.02),
    "sharpness": (colours.sharpness, F.adjust_sharpness, FACTORS, 0, 0),
    "hue": (colours.hue, F.adjust_hue, (-0.5, -0.3, 0.0, 0.1, 0.25, 0.5), 1, 0.01),
    "posterize": (colours.posterize, lambda i, s: F.posterize(i, int(s)), (8, 7, 5, 3, 2, 1), 0, 0),
    "solarize": (
        colours.solarize,
        lambda i, s: F.solarize(i, 255 * s),
        (0.0, 128 / 255, *torch.linspace(1, 0, 31)[[0, 2, 7, 12]].tolist()),
        0,
        0,
    ),
    "solarize_add": (
        colours.solarize_add,
        lambda i, s: torch.where(i < 128, (i.int() + int(s)).clamp(max=255).byte(), i),
        (0, 1, 50, 99, 110, 128),
        0,
        0,
    ),
    "autocontrast": (colours.autocontrast, lambda i, s: F.autocontrast(i), FACTORS, 0, 0),
    "equalize": (colours.equalize, lambda i, s: F.equalize(i), FACTORS, 0, 0),
    "invert": (colours.invert, lambda i, s: F.invert(i), FACTORS, 0, 0),
    "grey": (colours.grey, lambda i, s: F.rgb_to_grayscale(i, len(i)), FACTORS, 0, 0),
    "shear_x": (geometry.shear_x, lambda i, s: affine(i, **sheared(s, 0)), SIGNED, 0, 0),
    "shear_y": (geometry.shear_y, lambda i, s: affine(i, **sheared(0, s)), SIGNED, 0, 0),
    "translate_x": (geometry.translate_x, lambda i, s: affine(i, (int(s), 0)), SHIFTS, 0, 0),
    "translate_y": (geometry.translate_y, lambda i, s: affine(i, (0, int(s))), SHIFTS, 0, 0),
    "rotate": (geometry.rotate, F.rotate, (-135.0, -29.0, -9.0, 0.0, 4.5, 29.0), 0, 0),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_an_operation_equals_the_librarys(name: str, shape: tuple[int, ...]) -> None:
    operation, library, strengths, largest, share = CASES[name]
    pixels = images(shape, len(strengths))
    before = pixels.clone()
    changed = operation(pixels, torch.tensor(strengths, dtype=torch.float64))
    expected = torch.stack([library(i, s) for i, s in zip(pixels, strengths, strict=True)])
    difference = (changed.int() - expected.int()).abs()
    assert changed.dtype == torch.uint8
    assert int(difference.max()) <= largest
    assert float((difference > 0).float().mean()) <= share
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("name", CASES)
def test_an_image_does_not_depend_on_the_others(name: str) -> None:
    operation, _, strengths, _, _ = CASES[name]
    pixels, values = images((3, 9, 7), 6), torch.tensor(strengths, dtype=torch.float64)
    together = operation(pixels, values)
    for row in range(6):
        assert torch.equal(
            operation(pixels[row : row + 1], values[row : row + 1])[0], together[row]
        )


@pytest.mark.parametrize("resize", [geometry.resized_crop, geometry.resized_together])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (3, 37, 23)], ids=str)
@pytest.mark.parametrize("size", [None, (5, 7), (48, 40)], ids=str)
@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_a_resized_crop_equals_the_librarys(
    kind: str,
    shape: tuple[int, ...],
    size: tuple[int, int] | None,
    resize: Callable,
) -> None:
    height, width = shape[1:]
    target = size or (height, width)
    boxes = [[0, 0, height, width], [1, 2, height - 3, width - 4], [0, 0, 3, 5], [2, 1, 2, 6]]
    boxes += [[height // 2, 0, height // 2, width], [height - 1, width - 1, 1, 1]]
    pixels = images(shape, 6)
    cubic = torch.full((6,), kind == "bicubic")
    resized = resize(pixels, torch.tensor(boxes), target, cubic)
    expected = [
        F.resized_crop(image, *box, list(target), InterpolationMode(kind), antialias=True)
        for image, box in zip(pixels, boxes, strict=True)
    ]
    assert torch.equal(resized, torch.stack(expected))


def test_a_resized_crop_of_floats_is_not_rounded() -> None:
    pixels = torch.rand(2, 1, 9, 8)
    boxes = torch.tensor([[1, 1, 6, 7], [0, 0, 9, 8]])
    for resize in (geometry.resized_crop, geometry.resized_together):
        resized = resize(pixels, boxes, (4, 5), torch.tensor([False, True]))
        modes = map(InterpolationMode, ("bilinear", "bicubic"))
        for image, box, mode, one in zip(pixels, boxes.tolist(), modes, resized, strict=True):
            expected = F.resized_crop(image, *box, [4, 5], mode, antialias=True)
            torch.testing.assert_close(one, expected, atol=1e-5, rtol=0)


def test_blur_equals_the_librarys_with_its_kernel_of_thirteen() -> None:
    sigmas = torch.tensor([0.1, 0.5, 1.3, 2.0], dtype=torch.float64)
    pixels = images((3, 17, 12), 4)
    blurred = geometry.blur(pixels, sigmas)
    for image, sigma, one in zip(pixels, sigmas.tolist(), blurred, strict=True):
        expected = F.gaussian_blur(image, [13, 13], [sigma, sigma])
        assert (one.int() - expected.int()).abs().max() <= 1
