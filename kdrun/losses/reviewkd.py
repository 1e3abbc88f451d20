"""Knowledge review: Chen et al., CVPR 2021, arXiv 2104.09044."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.base import DistillationLoss, LossContext, TapRequest, full_precision
from kdrun.losses.shapes import as_map, map_pairs, pooled, tap_names
from kdrun.ranges import Channels
from kdrun.types import Batch, Outputs

LEVELS = (4, 2, 1)  # sides of the pooled maps that are compared besides the full one


class KnowledgeReview(DistillationLoss):
    """Each teacher stage is compared with a fusion of the student's stage and all deeper ones.

    From the embedding `[B, D, 1, 1]` back to the first tap: a fusion block reduces the student's
    map to `width` channels, adds the deeper block's result (repeated to this size) with learnt
    weights per place, and puts out the teacher's shape (paper §3). Output and teacher are
    compared at full size and averaged down to 4×4, 2×2 and 1×1: mean squared errors with weights
    1, ½, ¼, ⅛, divided by the sum of the weights in use; sizes not below the map's are left out.
    Summed over the taps and the embedding. weight: 1 with a linear warm-up over 20 epochs
    (the CIFAR-100 code of mdistiller; the authors' scripts use 0.6 to 8, 5 for most pairs).

    As a criterion: lists of maps with the embedding `[B, D]` last.

    width: maximum number of channels; fewer if the student's embedding is narrower.
    Raises ConfigError for a width below 1 and for tokens that fill no square.
    """

    id = "reviewkd"
    full_name = "Knowledge review"
    formula = (
        "Σ_i HCL(fusion_i(f_s,i ... f_s,L), f_t,i), HCL = (MSE + ½ MSE at 4×4 + ¼ at 2×2 + ⅛ at "
        "1×1) / (1 + ½ + ¼ + ⅛); mean over all elements, sum over taps and embedding"
    )
    source = "Chen et al. 2021, CVPR, arXiv 2104.09044, §3"
    reads_embedding = True

    def __init__(self, taps: Sequence[TapRequest] = ("stages_pre",), width: Channels = 512) -> None:
        super().__init__(taps)
        self.width = width
        self.blocks = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        pairs = self._levels(student, teacher)
        width = min(self.width, pairs[-1][0].shape[1])
        last = len(pairs) - 1
        self.blocks = nn.ModuleList(
            FusionBlock(s.shape[1], width, t.shape[1], fuses=i < last)
            for i, (s, t) in enumerate(pairs)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the features of each tap pair and the embeddings `[B, D]`."""
        losses: list[Tensor] = []
        deeper = None
        pairs = self._levels(student, teacher)
        for block, (s, t) in reversed(list(zip(self.blocks, pairs, strict=True))):
            output, deeper = block(s, deeper, (t.shape[2], t.shape[3]))
            losses.append(hierarchical_context(output, t))
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        return f"ReviewKD({tap_names(self)}+embedding)"

    def _levels(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        """(student, teacher) maps from the first tap to the embedding."""
        assert student.embedding is not None
        assert teacher.embedding is not None
        embeddings = (
            as_map(full_precision(student.embedding)),
            as_map(full_precision(teacher.embedding)).detach(),
        )
        return [*map_pairs(self, student, teacher), embeddings]


class FusionBlock(nn.Module):
    """Attention-based fusion of a student's map `[B, C, H, W]` with a deeper block's result."""

    def __init__(self, channels: int, width: int, out_channels: int, fuses: bool) -> None:
        super().__init__()
        reduce = nn.Conv2d(channels, width, 1, bias=False)
        expand = nn.Conv2d(width, out_channels, 3, padding=1, bias=False)
        for convolution in (reduce, expand):
            nn.init.kaiming_uniform_(convolution.weight, a=1)
        self.reduce = nn.Sequential(reduce, AdapterNorm(width))
        self.attention = nn.Conv2d(2 * width, 2, 1) if fuses else None
        self.expand = nn.Sequential(expand, AdapterNorm(out_channels))

    def forward(
        self, features: Tensor, deeper: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """(output `[B, out_channels, *size]`, what is passed on `[B, width, *size]`)."""
        fused = self.reduce(features)
        if self.attention is not None:
            assert deeper is not None
            size_here = (fused.shape[2], fused.shape[3])
            weights = self._weights(fused, deeper, size_here)
            deeper = _nearest(deeper, size_here)
            fused = torch.addcmul(fused * weights[:, :1], deeper, weights[:, 1:])
        fused = _nearest(fused, size)
        return self.expand(fused), fused

    def _weights(self, fused: Tensor, deeper: Tensor, size: tuple[int, int]) -> Tensor:
        """Attention weights of the two maps, `[B, 2, *size]`.

        A 1×1 convolution of concatenated maps is the sum of one convolution per map. Computed
        separately, the deeper map is convolved before upsampling and nothing is concatenated.
        """
        assert self.attention is not None
        fused_weight, deeper_weight = self.attention.weight.split(fused.shape[1], dim=1)
        scores = F.conv2d(fused, fused_weight, self.attention.bias)
        return torch.sigmoid(scores + _nearest(F.conv2d(deeper, deeper_weight), size))


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """Hierarchical context loss of two maps `[B, C, H, W]`: a scalar."""
    loss, total, weight = F.mse_loss(student, teacher), 1.0, 1.0
    for side in LEVELS:
        if side >= min(student.shape[2:]):
            continue
        weight /= 2.0
        size = (side, side)
        loss = loss + weight * F.mse_loss(pooled(student, size), pooled(teacher, size))
        total += weight
    return loss / total


def _nearest(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[2:] == size:
        return features
    return F.interpolate(features, size, mode="nearest")
