"""Relational knowledge distillation: Park et al., CVPR 2019, arXiv 1904.05068."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.losses.base import DistillationLoss
from kdrun.losses.embeddings import embedding_pair
from kdrun.losses.shapes import unit
from kdrun.ranges import NotNegative
from kdrun.types import Batch, Outputs

ROUNDING = 16.0  # in units of the precision of a squared length


class RelationalDistillation(DistillationLoss):
    """Match distances of pairs and angles of triplets of images.

    Embeddings `[B, D]`, widths may differ. Distance: ‖e_i - e_j‖ divided by the mean of those that
    are not zero, `[B, B]` (eq. 5-7). Angle: the cosine at e_i of the triangle e_i, e_j, e_k,
    `[B, B, B]` (eq. 8-9). Each: Huber loss with threshold 1, mean over all pairs or triplets,
    also those of an image with itself. Loss: distance · D + angle · A. weight: 1 (the recipe of
    the tables in Tian et al., arXiv 1910.10699).

    distance, angle: weights of the two parts, not negative.
    normalise: embeddings of unit length first, as in metric learning.
    Raises ConfigError for negative weights.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "rkd"
    full_name = "Relational knowledge distillation"
    formula = (
        "25 · huber(d_s, d_t) + 50 · huber(cos_s, cos_t), d = ‖e_i - e_j‖ / mean, "
        "cos = angle at i of j and k; mean over pairs and over triplets"
    )
    source = "Park et al. 2019, CVPR, arXiv 1904.05068, §3.2, eq. 5-10"
    compares_samples = True
    reads_embedding = True

    def __init__(
        self, distance: NotNegative = 25.0, angle: NotNegative = 50.0, normalise: bool = False
    ) -> None:
        super().__init__()
        self.distance = distance
        self.angle = angle
        self.normalise = normalise

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from embeddings `[B, D_s]` and `[B, D_t]`."""
        s, t = embedding_pair(student, teacher)
        if self.normalise:
            s, t = unit(s, dim=1), unit(t, dim=1)
        gram_s, gram_t = centred_gram(s), centred_gram(t)
        far_s, far_t = distances(gram_s), distances(gram_t)
        loss = torch.zeros_like(far_s[0, 0])
        if self.distance:
            loss = loss + self.distance * F.smooth_l1_loss(relative(far_s), relative(far_t))
        if self.angle:
            angle_loss = F.smooth_l1_loss(angles(gram_s, far_s), angles(gram_t, far_t))
            loss = loss + self.angle * angle_loss
        return loss

    def symbol(self) -> str:
        return f"RKD({self.distance:g}*D + {self.angle:g}*A)"


def centred_gram(embeddings: Tensor) -> Tensor:
    """Inner products `[B, B]` of embeddings `[B, D]` less their mean, which changes no distance.

    All distances and angles follow from them, without the `[B, B, D]` differences.
    """
    centred = embeddings - embeddings.mean(dim=0)
    return centred @ centred.T


def distances(gram: Tensor) -> Tensor:
    """Euclidean distances `[B, B]`; exactly 0, without gradient, where rounding leaves nothing."""
    lengths = gram.diagonal()
    sums = lengths[:, None] + lengths[None, :]
    squares = sums - 2.0 * gram
    apart = squares > ROUNDING * torch.finfo(gram.dtype).eps * sums
    apart = apart & ~torch.eye(len(gram), dtype=torch.bool, device=gram.device)
    return torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


def relative(far: Tensor) -> Tensor:
    """Distances `[B, B]` divided by the mean of those that are not 0."""
    mean = far.sum() / (far > 0).sum().clamp_min(1)
    return far / torch.where(mean > 0, mean, 1.0)


def angles(gram: Tensor, far: Tensor) -> Tensor:
    """Cosines `[B, B, B]` at i between j and k; 0 where one of them lies on i."""
    to_anchor = gram - gram.diagonal()[:, None]  # [i, j]: (e_j - e_i) · e_i
    products = gram[None, :, :] - to_anchor[:, None, :] - gram[:, :, None]
    norms = torch.where(far > 0, far, 1.0)
    known = (far > 0).to(gram.dtype)
    scale = known / norms
    return products * scale[:, :, None] * scale[:, None, :]
