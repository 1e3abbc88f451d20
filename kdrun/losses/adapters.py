"""Trainable projections from the student's features to the teacher's shapes."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.losses.shapes import resized

LARGEST_SHRINK = 6  # pixels that a convolution without padding may take away


class AdapterNorm(nn.BatchNorm2d):
    """Batch normalisation that also takes one value per channel (one image, a map of 1×1).

    Such a batch has no deviation: it is normalised with the running statistics.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[B, C, H, W]` → the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


class Resize(nn.Module):
    """Averages a map down, or repeats its values, to a fixed size."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """`[B, C, H, W]` → `[B, C, *size]`."""
        return resized(features, self.size)


def regressor(student: Tensor, teacher: Tensor, norm: bool, relu: bool) -> nn.Sequential:
    """A convolution that gives the student's map the teacher's shape; see `to_shape`.

    student, teacher: `[B, C, H, W]` of a dry batch. norm, relu: what follows the convolution.
    """
    layers = to_shape(student, teacher)
    if norm:
        layers.append(AdapterNorm(teacher.shape[1]))
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def to_shape(student: Tensor, teacher: Tensor) -> list[nn.Module]:
    """Layers from the student's `[B, C, H, W]` to the teacher's, by the ratio of their sizes.

    Equal: 1×1. Twice: 3×3 with stride 2. Half: 4×4 transposed with stride 2. Larger by up to six
    pixels: a kernel of one more than the difference, without padding (FitNets, arXiv 1412.6550,
    §2.2). Any other: averaged or repeated to the teacher's size, then 1×1.
    """
    (channels, height, width), target = student.shape[1:], teacher.shape[1:]
    size = (target[1], target[2])
    shrink = (height - size[0], width - size[1])
    if (height, width) == (2 * size[0], 2 * size[1]):
        return [nn.Conv2d(channels, target[0], 3, stride=2, padding=1)]
    if (2 * height, 2 * width) == size:
        return [nn.ConvTranspose2d(channels, target[0], 4, stride=2, padding=1)]
    if all(0 <= pixels <= LARGEST_SHRINK for pixels in shrink):
        return [nn.Conv2d(channels, target[0], (1 + shrink[0], 1 + shrink[1]))]
    return [Resize(size), nn.Conv2d(channels, target[0], 1)]


def connector(in_channels: int, out_channels: int) -> nn.Sequential:
    """1×1 convolution without bias, drawn from N(0, 2 / fan-out), and batch normalisation."""
    convolution = nn.Conv2d(in_channels, out_channels, 1, bias=False)
    nn.init.normal_(convolution.weight, 0.0, math.sqrt(2.0 / out_channels))
    return nn.Sequential(convolution, AdapterNorm(out_channels))
