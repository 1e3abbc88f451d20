"""Norm and direction of embeddings: Wang et al. 2023, arXiv 2305.17007 (KD++)."""

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.base import PER_LABEL, DistillationLoss, LossContext, full_precision
from kdrun.losses.embeddings import embedding_pair
from kdrun.losses.label_pairs import mean_over_labels, weighted_mean
from kdrun.losses.shapes import SMALLEST_NORM, unit
from kdrun.ranges import Share
from kdrun.types import Batch, Outputs


class NormAndDirection(DistillationLoss):
    """1 - e_s · c_y / (‖c_y‖ · max(‖e_s‖, ‖e_t‖)), averaged over the batch.

    e_s `[B, D]` and e_t `[B, D]` are the embeddings, and c_y `[D]` the mean of the teacher's over
    the training images of the label y, without augmentation. The loss is 0 for a student that
    points to the class mean and is at least as long as its teacher. Where the student is longer,
    the gradient reaches the denominator too, as in the authors' code. Where the widths differ, the
    student's embedding passes batch normalisation, dropout and a linear layer D_s → D_t first.
    The class means come from one pass over the training images, which is stored with the teacher.
    weight: 2 with 1 · CE and 1 · kd, the published values for ResNet-56 → ResNet-20; 0.5 to 4 for
    other pairs. Meant as an addition to another loss: `'loss=[kd,nd]' ce=1 loss.kd.weight=1`.

    dropout: of the student's embedding before the linear layer, within [0, 1); the authors' 0.5.
    class_means: `[C, D]`, instead of those from the training images. As a criterion: give it;
    `kdrun.losses.class_statistics.class_means` computes it from embeddings and labels.
    """

    id = "nd"
    full_name = "Norm and direction"
    formula = "1 - e_s · c_y / (‖c_y‖ · max(‖e_s‖, ‖e_t‖)), c_y: class means; mean over the batch"
    source = "Wang et al. 2023, arXiv 2305.17007; weight and projector from the authors' code"
    reads_labels = True
    reads_embedding = True
    label_pairs = PER_LABEL
    python_only = ("class_means",)

    def __init__(self, dropout: Share = 0.0, class_means: Tensor | None = None) -> None:
        super().__init__()
        self.dropout = dropout
        self._given = class_means
        self.projector: nn.Module = nn.Identity()
        self.directions: Tensor  # [C, D], from `build`
        self.register_buffer("directions", None)

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        embeddings = embedding_pair(student, teacher)
        widths = embeddings[0].shape[1], embeddings[1].shape[1]
        means = self._given
        if means is None:
            if context.embeddings is None:
                raise ConfigError(
                    "loss=nd needs the mean embedding of each class, from a trained teacher: use "
                    "scheme=offline; in Python pass it, ND(class_means=means), or "
                    "Distiller(train=batches)."
                )
            means = context.embeddings.class_means()
        if means.dim() != 2 or means.shape[1] != widths[1]:
            raise ConfigError(
                f"class_means of loss=nd are {list(means.shape)}: they must be [classes, "
                f"{widths[1]}], the width of the teacher's embedding."
            )
        self.directions = unit(full_precision(means.detach()), dim=1)
        if widths[0] != widths[1]:
            self.projector = nn.Sequential(
                nn.Unflatten(1, (widths[0], 1, 1)),
                AdapterNorm(widths[0]),
                nn.Flatten(),
                nn.Dropout(self.dropout),
                nn.Linear(*widths),
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the embeddings `[B, D_s]` and `[B, D_t]` and labels `[B]`."""
        raw, target = embedding_pair(student, teacher)
        projected = self.projector(raw)
        length, limit = (torch.linalg.vector_norm(rows, dim=1) for rows in (projected, target))
        longer = torch.where(limit > length, limit, length)
        longer = torch.where(longer > SMALLEST_NORM, longer, 1.0)
        directions = self.directions.to(projected.dtype)

        def loss(targets: Tensor, shares: Tensor | None) -> Tensor:
            along = (projected * directions[targets]).sum(dim=1)
            return weighted_mean(1.0 - along / longer, shares)

        return mean_over_labels(loss, batch)
