"""From one normalisation to another."""

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.errors import ConfigError
from kdrun.models.normalise import Renormalise
from kdrun.types import Normalisation

SOURCE = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
TARGET = Normalisation((0.1, 0.6, 0.3), (0.4, 0.1, 0.5))


def normalised(pixels: torch.Tensor, constants: Normalisation) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (constants.mean, constants.std))
    return (pixels - mean) / std


def test_equals_normalising_the_pixels() -> None:
    pixels = torch.rand(2, 3, 5, 4)
    images = Renormalise(SOURCE, TARGET)(normalised(pixels, SOURCE))
    torch.testing.assert_close(images, normalised(pixels, TARGET))


def test_there_and_back() -> None:
    images = torch.randn(2, 3, 5, 4)
    back = Renormalise(TARGET, SOURCE)(Renormalise(SOURCE, TARGET)(images))
    torch.testing.assert_close(back, images)


def test_saves_nothing_and_keeps_the_dtype() -> None:
    module = Renormalise(SOURCE, TARGET)
    assert not module.state_dict()
    assert module(torch.zeros(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_only_grey_and_colour_are_converted_into_each_other() -> None:
    with pytest.raises(ConfigError, match="3 channels, but these have 2"):
        Renormalise(Normalisation((0.1, 0.1), (0.2, 0.2)), TARGET)


def test_grey_images_are_repeated() -> None:
    grey = Normalisation((0.25,), (0.5,))
    pixels = torch.rand(2, 1, 4, 5)
    expected = _normalised(pixels.expand(2, 3, 4, 5), TARGET)
    torch.testing.assert_close(Renormalise(grey, TARGET)(_normalised(pixels, grey)), expected)


def test_colour_images_become_grey_as_pil_makes_them() -> None:
    grey = Normalisation((0.25,), (0.5,))
    pixels = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy().astype(np.uint8))
    expected = torch.from_numpy(np.asarray(image.convert("L"))).float()[None, None] / 255
    made = Renormalise(TARGET, grey)(_normalised(pixels / 255, TARGET)) * 0.5 + 0.25
    assert made.shape == (1, 1, 16, 16)
    assert float((made - expected).abs().max()) <= 0.51 / 255  # PIL rounds to whole pixels


def _normalised(pixels: torch.Tensor, constants: Normalisation) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (constants.mean, constants.std))
    return (pixels - mean) / std
