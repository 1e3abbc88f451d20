"""The normalisation inside the exported network is the loader's, to the last bit."""

import pytest
import torch
from torch import nn

from kdrun.data.loaders.loaders import Normaliser
from kdrun.deploy.folded import Folded
from kdrun.types import Normalisation

CONSTANTS = Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


class Seen(nn.Module):
    """Returns what it is given, as an object with logits if asked."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_equals_the_loader(dtype: torch.dtype) -> None:
    pixels = torch.randint(0, 256, (4, 3, 5, 7)).to(dtype)
    loader = Normaliser(CONSTANTS, dtype, torch.device("cpu"), torch.contiguous_format)
    assert torch.equal(Folded(Seen(), CONSTANTS)(pixels), loader(pixels))


def test_bytes_and_scaled_floats_agree() -> None:
    pixels = torch.randint(0, 256, (4, 3, 5, 7), dtype=torch.uint8)
    folded = Folded(Seen(), CONSTANTS)
    torch.testing.assert_close(folded(pixels), folded(pixels / 255))
    for dtype in (torch.int16, torch.int64):
        assert torch.equal(folded(pixels.to(dtype)), folded(pixels))
    half = Folded(nn.Conv2d(3, 2, 3), CONSTANTS).half()
    assert half(pixels.half() / 255).dtype == half(pixels).dtype == torch.float16


def test_takes_the_logits_out_of_an_object() -> None:
    class Answer(nn.Module):
        def forward(self, images: torch.Tensor) -> object:
            return type("Output", (), {"logits": images.mean(dim=(2, 3))})()

    assert Folded(Answer(), CONSTANTS)(torch.zeros(2, 3, 4, 4)).shape == (2, 3)
