"""Convert features of any two networks to maps of comparable shapes.

Convolutional features are maps `[B, C, H, W]`. Transformer tokens `[B, N, D]` become the map
`[B, D, √N, √N]`, without the leading class and distillation tokens. Units of a fully connected
layer `[B, D]` become `[B, D, 1, 1]`.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, feature_pairs, full_precision
from kdrun.types import Outputs

LEADING_TOKENS = (0, 1, 2)  # none; a class token; a class and a distillation token
SMALLEST_NORM = 1e-12


def map_pairs(
    loss: DistillationLoss, student: Outputs, teacher: Outputs
) -> list[tuple[Tensor, Tensor]]:
    """The (student, teacher) maps `[B, C, H, W]` at the loss's taps; the teacher's are detached.

    Raises ConfigError for features that cannot be reshaped to a map.
    """
    features = feature_pairs(loss, student, teacher)
    return [
        (as_map(s, f"the student's {names[0]}"), as_map(t, f"the teacher's {names[1]}").detach())
        for names, (s, t) in zip(loss.pairs, features, strict=True)
    ]


def as_map(features: Tensor, name: str = "the tap") -> Tensor:
    """`[B, C, H, W]`, `[B, N, D]` or `[B, D]` as a map `[B, C, H, W]`.

    name: of the features in errors. Raises ConfigError for other shapes, and for a number of tokens
    that is not a square.
    """
    if features.dim() == 4:
        return features
    if features.dim() == 2:
        return features[:, :, None, None]
    if features.dim() != 3:
        raise ConfigError(
            f"{name} is {list(features.shape)}: this loss needs a map [B, C, H, W], tokens "
            "[B, N, D] or units [B, D]. Choose another tap (loss.ID.taps)."
        )
    leading, side = token_grid(features, name)
    return features[:, leading:].transpose(1, 2).unflatten(2, (side, side))


def token_grid(features: Tensor, name: str) -> tuple[int, int]:
    """(number of leading tokens, side of the square that the others form) of tokens `[B, N, D]`.

    name: of the features in errors. Raises ConfigError if they form no square.
    """
    for leading in LEADING_TOKENS:
        side = math.isqrt(max(features.shape[1] - leading, 0))
        if side > 0 and side * side == features.shape[1] - leading:
            return leading, side
    raise ConfigError(
        f"{name} is {list(features.shape)}: its {features.shape[1]} tokens do not form a square, "
        "so this loss cannot reshape them to a map. Use square images, or a loss on the embedding "
        "(pkt, rkd, crd)."
    )


def pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    """A map average-pooled to `size`, which must not exceed the map's size."""
    height, width = features.shape[2:]
    if (height, width) == size:
        return features
    # same result, but faster and deterministic on CUDA
    if height % size[0] == 0 and width % size[1] == 0:
        return F.avg_pool2d(features, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(features, size)


def to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps average-pooled to the smaller height and the smaller width."""
    size = smaller_size(student, teacher)
    return pooled(student, size), pooled(teacher, size)


def resized(features: Tensor, size: tuple[int, int]) -> Tensor:
    """A map resized to `size`: average pooling to shrink, nearest neighbour to enlarge."""
    height, width = features.shape[2:]
    features = pooled(features, (min(height, size[0]), min(width, size[1])))
    if features.shape[2:] == size:
        return features
    return F.interpolate(features, size, mode="nearest")


def smaller_size(student: Tensor, teacher: Tensor) -> tuple[int, int]:
    """The smaller (H, W) of two maps."""
    height, width = (min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True))
    return height, width


def require_places(
    loss: DistillationLoss, pairs: list[tuple[Tensor, Tensor]], instead: str
) -> None:
    """Raise ConfigError when no pair of maps shares more than one spatial position.

    A loss on attention maps is 0 for a map of size 1×1. Such a pair is accepted as long as another
    pair is larger. instead: sentence that says what to use.
    """
    if any(math.prod(smaller_size(s, t)) > 1 for s, t in pairs):
        return
    shapes = ", ".join(
        f"{a} {list(s.shape)} with {b} {list(t.shape)}"
        for (a, b), (s, t) in zip(loss.pairs, pairs, strict=True)
    )
    raise ConfigError(
        f"loss={loss.id} compares spatial positions of activations, but these features share only "
        f"one: {shapes}. {instead}"
    )


def unit(tensor: Tensor, dim: int) -> Tensor:
    """`tensor` divided by its L2 norm along `dim`.

    Zero vectors stay zero, and their gradient passes through unscaled: dividing it by a small
    epsilon would blow it up.
    """
    norm = torch.linalg.vector_norm(tensor, dim=dim, keepdim=True)
    return tensor / torch.where(norm > SMALLEST_NORM, norm, 1.0)


def tap_names(loss: DistillationLoss) -> str:
    """The student's taps as printed in the objective: `stage1+stage2`."""
    return "+".join(student for student, _ in loss.pairs)


def zero_of(student: Outputs) -> Tensor:
    """A zero with the student's graph: the value of a loss that only acts in pre-training."""
    return (0.0 * full_precision(student.logits).sum()).abs()  # abs: never -0
