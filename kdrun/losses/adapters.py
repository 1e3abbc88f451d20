"""Trainable projections from the student's features to the teacher's shapes."""

import inspect
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import orthogonal

from kdrun.config.schema import LossConfig
from kdrun.errors import ConfigError, did_you_mean
from kdrun.losses.shapes import resized

DEFAULT, ORTHOGONAL = ADAPTERS = ("default", "orthogonal")
SMALLEST_VARIANCE = 1e-12
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


class OrthogonalProjection(nn.Module):
    """A linear map without bias whose weight `[out, in]` stays orthogonal while it is trained.

    With out ≥ in it keeps all distances and angles between the student's features, so that the
    student itself has to match the teacher (Miles et al. 2024, CVPR, arXiv 2403.06213).
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        linear = nn.Linear(in_features, out_features, bias=False)
        nn.init.orthogonal_(linear.weight)
        self.linear = orthogonal(linear)

    def forward(self, features: Tensor) -> Tensor:
        """`[B, in]` → `[B, out]`, or `[B, in, H, W]` → `[B, out, H, W]`, place by place."""
        weight = cast(Tensor, self.linear.weight).to(features.dtype)
        if features.dim() == 4:
            return F.conv2d(features, weight[:, :, None, None])
        return F.linear(features, weight)


def require_adapter(loss: str, adapter: str) -> None:
    """Raise ConfigError unless `adapter` is one of `ADAPTERS`."""
    if adapter not in ADAPTERS:
        raise ConfigError(
            f"loss.{loss}.adapter={adapter} is not one of {', '.join(ADAPTERS)}."
            f"{did_you_mean(adapter, ADAPTERS)}"
        )


def chosen_adapter(config: LossConfig, cls: type[nn.Module]) -> str | None:
    """The adapter that is set for a loss. Raises ConfigError for a class that has no choice."""
    if "adapter" not in inspect.signature(cls.__init__).parameters:
        raise ConfigError(
            f"loss.{config.id}.adapter={config.adapter} would change nothing: only fitnet, itrd "
            "and srd have a projection that can be orthogonal. Leave it out."
        )
    return config.adapter


def linear_adapter(in_features: int, out_features: int, adapter: str) -> nn.Module:
    """A projection of embeddings `[B, in]` → `[B, out]` of the kind `adapter`."""
    if adapter == ORTHOGONAL:
        return OrthogonalProjection(in_features, out_features)
    return nn.Linear(in_features, out_features)


def orthogonal_regressor(student: Tensor, teacher: Tensor) -> nn.Sequential:
    """The student's map resized to the teacher's size, then projected to its channels."""
    size = (teacher.shape[2], teacher.shape[3])
    layers: list[nn.Module] = [] if student.shape[2:] == teacher.shape[2:] else [Resize(size)]
    return nn.Sequential(*layers, OrthogonalProjection(student.shape[1], teacher.shape[1]))


def standardised(features: Tensor) -> Tensor:
    """Features `[B, C, ...]` with mean 0 and deviation 1 per channel, over batch and places.

    A channel without variance becomes 0.
    """
    dims = [0, *range(2, features.dim())]
    centred = features - features.mean(dims, keepdim=True)
    variance = centred.square().mean(dims, keepdim=True)
    varies = variance > SMALLEST_VARIANCE
    return torch.where(varies, centred / torch.where(varies, variance, 1.0).sqrt(), 0.0)


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
