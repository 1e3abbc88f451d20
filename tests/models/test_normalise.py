"""From one normalisation to another."""

import pytest
import torch

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


def test_channels_must_agree() -> None:
    with pytest.raises(ConfigError, match="3 channels, these have 1"):
        Renormalise(Normalisation((0.1,), (0.2,)), TARGET)
