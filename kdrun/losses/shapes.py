"""Feature maps of any two networks, brought to shapes that can be compared.

Convolutional features are maps `[B, C, H, W]`. Tokens of a transformer `[B, N, D]` become the map
`[B, D, √N, √N]`, a class and a distillation token in front being dropped; units of a fully
connected layer `[B, D]` become `[B, D, 1, 1]`.
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
    term: DistillationLoss, student: Outputs, teacher: Outputs
) -> list[tuple[Tensor, Tensor]]:
    """The (student, teacher) maps `[B, C, H, W]` of the term's taps; no gradient to the teacher.

    Raises ConfigError for features that are no map and cannot be made one.
    """
    found = feature_pairs(term, student, teacher)
    return [
        (as_map(s, f"the student's {names[0]}"), as_map(t, f"the teacher's {names[1]}").detach())
        for names, (s, t) in zip(term.pairs, found, strict=True)
    ]


def as_map(features: Tensor, name: str = "the tap") -> Tensor:
    """`[B, C, H, W]`, `[B, N, D]` or `[B, D]` as a map `[B, C, H, W]`.

    name: of the features in errors. Raises ConfigError for other shapes, and for tokens that do
    not fill a square.
    """
    if features.dim() == 4:
        return features
    if features.dim() == 2:
        return features[:, :, None, None]
    if features.dim() != 3:
        raise ConfigError(
            f"{name} is {list(features.shape)}: this loss needs a map [B, C, H, W], tokens "
            "[B, N, D] or units [B, D]. Name another tap in loss.<term>.taps."
        )
    for leading in LEADING_TOKENS:
        side = math.isqrt(max(features.shape[1] - leading, 0))
        if side > 0 and side * side == features.shape[1] - leading:
            return features[:, leading:].transpose(1, 2).unflatten(2, (side, side))
    raise ConfigError(
        f"{name} is {list(features.shape)}: its {features.shape[1]} tokens fill no square, so this "
        "loss cannot lay them out as a map. Use square images, or a loss on the embedding (pkt, "
        "rkd, crd)."
    )


def pooled(features: Tensor, size: tuple[int, int]) -> Tensor:
    """A map averaged down to `size`, which is nowhere larger than the map."""
    height, width = features.shape[2:]
    if (height, width) == size:
        return features
    if height % size[0] == 0 and width % size[1] == 0:  # the same; faster, and reproducible on CUDA
        return F.avg_pool2d(features, (height // size[0], width // size[1]))
    return F.adaptive_avg_pool2d(features, size)


def to_smaller(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps, the larger averaged down to the smaller, for height and width separately."""
    size = smaller_size(student, teacher)
    return pooled(student, size), pooled(teacher, size)


def resized(features: Tensor, size: tuple[int, int]) -> Tensor:
    """A map averaged down where it is larger than `size`, repeated where it is smaller."""
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
    term: DistillationLoss, pairs: list[tuple[Tensor, Tensor]], instead: str
) -> None:
    """Raise ConfigError when no pair of maps has more than one place in common.

    A method that compares where activations lie sees nothing in a single place. A pair of one
    place among others adds zero and is let pass. instead: what to type.
    """
    if any(math.prod(smaller_size(s, t)) > 1 for s, t in pairs):
        return
    shapes = ", ".join(
        f"{a} {list(s.shape)} with {b} {list(t.shape)}"
        for (a, b), (s, t) in zip(term.pairs, pairs, strict=True)
    )
    raise ConfigError(
        f"loss={term.id} compares where activations lie, and these features have a single place in "
        f"common: {shapes}. {instead}"
    )


def unit(tensor: Tensor, dim: int) -> Tensor:
    """`tensor` divided by its L2 norm along `dim`.

    Zero vectors stay zero and pass the gradient on as it comes, instead of dividing it by the
    tiny number that keeps the quotient finite.
    """
    norm = torch.linalg.vector_norm(tensor, dim=dim, keepdim=True)
    return tensor / torch.where(norm > SMALLEST_NORM, norm, 1.0)


def tap_names(term: DistillationLoss) -> str:
    """The student's taps as the printed objective shows them: `stage1+stage2`."""
    return "+".join(student for student, _ in term.pairs)


def zero_of(student: Outputs) -> Tensor:
    """A zero in the student's graph: the value of a term that has done its work before."""
    return (0.0 * full_precision(student.logits).sum()).abs()  # abs: never -0
