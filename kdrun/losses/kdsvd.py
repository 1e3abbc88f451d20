"""Distillation of singular vectors: Lee, Kim & Song, ECCV 2018, arXiv 1807.06819."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext, TapRequest, require_variant
from kdrun.losses.shapes import map_pairs, require_places, tap_names, to_smaller
from kdrun.losses.singular import right_vectors
from kdrun.ranges import Channels, Choices
from kdrun.types import Batch, Outputs

Signs = Annotated[str, Choices(("positive", "lapack"))]
CANDIDATES = 3  # extra student vectors; the best aligned ones are selected


class SingularVectors(DistillationLoss):
    """Match correlations between the singular vectors of consecutive layers.

    Each image's map `[C, H, W]` is laid out as a matrix (see `variants`); v_t = its first k right
    singular vectors in the teacher, v_s = those of the student's first k + 3 that point most the
    way of each, turned to its sign (§3.2-3.3). Both are scaled by the teacher's singular values,
    jointly normalised. From one tap to the next: R = exp(-(a - b)² / 8) for every element a
    of one vector and b of the next (eq. 5). Loss: sum of (R_s - R_t)² over elements, k and
    consecutive taps; mean over the batch. The larger of two maps is averaged down to the smaller.
    weight: 1 (mdistiller's; no tables were published with it).

    A decomposition leaves the signs open, and R depends on those of consecutive taps: `signs`.
    With the same signs the value equals mdistiller's to rounding; with the signs of LAPACK it is
    mdistiller's, but may change with the LAPACK version and the device.
    The choice among the candidates passes no gradient. The gradient of the vectors is exact for
    separate singular values and bounded where two meet (`losses.singular`), where the authors
    clip it.

    k: vectors per map.
    signs: of the teacher's vectors. `positive`: the elements sum to 0 or more; `lapack`: as
    `torch.linalg.svd` returns them.
    variant: see `variants`. Only `mdistiller` compares networks of different widths.
    Raises ConfigError for fewer than two taps, maps without spatial size, k below 1, unknown signs,
    and widths that the variant cannot compare.
    """

    id = "kdsvd"
    full_name = "Singular value decomposition"
    formula = (
        "(R_s - R_t)², R = exp(-(v_i - v_{i-1})² / 8) of all elements of the scaled singular "
        "vectors of consecutive taps; sum over elements, mean over the batch"
    )
    source = "Lee, Kim & Song 2018, ECCV, arXiv 1807.06819, §3"
    variants = {  # noqa: RUF012
        "mdistiller": "a map is a matrix `[C·H, W]`: vectors over the columns; any widths",
        "repdistiller": "a map is a matrix `[H·W, C]`, as in the paper: vectors over the channels",
    }

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("stages",),
        k: Channels = 1,
        variant: str = "mdistiller",
        signs: Signs = "positive",
    ) -> None:
        super().__init__(taps)
        require_variant(type(self), variant)
        self.signs = signs
        self.k = k
        self.variant = variant

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        pairs = map_pairs(self, student, teacher)
        if len(pairs) < 2:
            raise ConfigError(
                f"loss=kdsvd compares consecutive taps, but there is only {len(pairs)}: name two "
                "or more in loss.kdsvd.taps."
            )
        if self.variant == "mdistiller":
            require_places(self, pairs, "Use loss=pkt, loss=rkd or loss=crd for such networks.")
            return
        for names, (s, t) in zip(self.pairs, pairs, strict=True):
            if s.shape[1] != t.shape[1]:
                raise ConfigError(
                    f"loss.kdsvd.variant=repdistiller needs equal widths, but {names[0]} has "
                    f"{list(s.shape)} in the student, {names[1]} {list(t.shape)} in the teacher: "
                    "use loss.kdsvd.variant=mdistiller."
                )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of each tap pair."""
        previous: tuple[Tensor, Tensor] | None = None
        losses = []
        for s, t in map_pairs(self, student, teacher):
            current = self._vectors(*to_smaller(s, t))
            if previous is not None:
                count = min(current[0].shape[2], previous[0].shape[2])
                r_s, r_t = (
                    _correlations(a[:, :, :count], b[:, :, :count])
                    for a, b in zip(current, previous, strict=True)
                )
                losses.append((r_s - r_t).square().sum() / len(s))
            previous = current
        return sum(losses[1:], losses[0])

    def _vectors(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Aligned and scaled vectors `[B, n, k]` of two maps `[B, C, H, W]`."""
        matrices = self._matrix(teacher)
        v_t, values = right_vectors(matrices, self.k)
        signs = v_t.sum(dim=1, keepdim=True)
        if self.signs == "lapack":
            _, _, rows = torch.linalg.svd(matrices, full_matrices=False)
            signs = (v_t * rows.mT[:, :, : v_t.shape[2]]).sum(dim=1, keepdim=True)
        v_t = torch.where(signs < 0, -v_t, v_t)
        v_s, _ = right_vectors(self._matrix(student), self.k + CANDIDATES)
        scale = F.normalize(values, dim=1)[:, None]
        return aligned(v_s, v_t) * scale, v_t * scale

    def _matrix(self, features: Tensor) -> Tensor:
        """A map `[B, C, H, W]` as the variant lays it out."""
        if self.variant == "mdistiller":
            return features.flatten(1, 2)
        return features.flatten(2).mT

    def symbol(self) -> str:
        return f"KDSVD({tap_names(self)})"


def aligned(candidates: Tensor, targets: Tensor) -> Tensor:
    """For each target `[B, n, k]` the candidate `[B, n, m]` nearest in direction, by its sign."""
    cosines = (candidates.mT @ targets).detach()
    best = cosines.abs().argmax(dim=1, keepdim=True)
    chosen = torch.zeros_like(cosines).scatter(1, best, cosines.gather(1, best).sign())
    return candidates @ chosen


def _correlations(vectors: Tensor, previous: Tensor) -> Tensor:
    """RBF similarities `[B, n, n', k]` of vectors `[B, n, k]` and `[B, n', k]`."""
    return (-(vectors[:, :, None] - previous[:, None]).square() / 8.0).exp()
