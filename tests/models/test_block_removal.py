"""Which blocks of a network go: those of the innermost stages, if the forward pass lets them."""

import pytest
import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.block_removal import CannotPruneError, removable_blocks

IMAGES = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A convolution, `[B, C, H, W]` → `[B, width, H / stride, W / stride]`."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv(x).relu()
        return output


class Inverted(nn.Module):
    """Two `Block`s, of which the second keeps its shape, and a projection."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            Block(channels, 12), Block(12, 12), nn.Conv2d(12, width, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv(x)
        return output


class Norm(nn.Module):
    """A normalisation with an activation: no block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.act(self.norm(x))
        return output


class Stage(nn.Module):
    """Blocks of one width; the first changes the shape unless it is the same."""

    def __init__(self, channels: int, width: int, count: int) -> None:
        super().__init__()
        stride = 1 if channels == width else 2
        later = [Block(width, width) for _ in range(count - 1)]
        self.blocks = nn.Sequential(Block(channels, width, stride), *later)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.blocks(x)
        return output


class Numbered(nn.Module):
    """Its forward pass counts its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        for number in range(4):
            x = self.blocks[number](x)
        return x


def test_stages_lose_blocks_and_are_not_lost() -> None:
    network = nn.Sequential()
    network.stages = nn.Sequential(Stage(4, 4, 2), Stage(4, 8, 2), Stage(8, 8, 6), Stage(8, 16, 2))
    kept = removable_blocks(network, IMAGES, 0.5)
    assert kept == {
        "stages.0.blocks": [0],
        "stages.1.blocks": [0],
        "stages.2.blocks": [0, 2, 4],
        "stages.3.blocks": [0],
    }


def test_layers_of_a_block_are_no_blocks() -> None:
    widths = [(4, 8), (8, 8), (8, 8), (8, 16), (16, 16)]
    network = nn.Sequential(Norm(), Norm(), *[Inverted(*pair) for pair in widths])
    assert removable_blocks(network, IMAGES, 0.5) == {"": [0, 1, 2, 5]}
    with pytest.raises(CannotPruneError, match="no stage with several equal blocks"):
        removable_blocks(nn.Sequential(Norm(), Norm(), Block(4, 8)), IMAGES, 0.5)


def test_without_equal_blocks_the_outermost_stage_of_several_layers_loses_some() -> None:
    stem = nn.Sequential(Block(4, 8), Block(8, 8))
    network = nn.Sequential()
    network.stem = stem
    network.blocks = nn.Sequential(Inverted(8, 16), Inverted(16, 16))
    assert removable_blocks(network, IMAGES, 0.5) == {"blocks": [0]}


def test_a_share_that_is_too_small_names_the_smallest() -> None:
    network = nn.Sequential(*[Block(4, 4) for _ in range(3)])
    with pytest.raises(ConfigError, match=r"of the 3 blocks .* removes one is 0\.17"):
        removable_blocks(network, IMAGES, 0.16)
    assert len(removable_blocks(network, IMAGES, 0.17)[""]) == 2


def test_blocks_that_the_forward_pass_counts() -> None:
    with pytest.raises(CannotPruneError, match="needs each of them, by name, by number"):
        removable_blocks(Numbered(), IMAGES, 0.5)
