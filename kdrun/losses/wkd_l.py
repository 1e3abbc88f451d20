"""Wasserstein distillation of logits: Lv et al., NeurIPS 2024, arXiv 2412.08139."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import (
    PER_LABEL,
    DistillationLoss,
    LossContext,
    full_precision,
    require_variant,
)
from kdrun.losses.context import NoNetwork
from kdrun.losses.embeddings import teacher_classifier
from kdrun.losses.label_pairs import mean_over_labels, weighted_mean
from kdrun.losses.logit_parts import other_logits, target_cross_entropy
from kdrun.losses.ramps import cosine_fall
from kdrun.losses.shapes import unit
from kdrun.ranges import Count, CountOrZero, NotNegative, Positive, Temperature
from kdrun.types import Batch, Outputs

FLOOR = 1e-8  # keeps costs above 0 and quotients finite, as in the published code


class WassersteinLogits(DistillationLoss):
    """-p_t,y · log p_s,y + transport · W(q_s, q_t) of logits `[B, C]`, averaged over the batch.

    q is the softmax at T over the classes other than the label y, and W the optimal transport cost
    between student and teacher under an entropy penalty, by Sinkhorn's iterations. Moving mass
    between classes i and j costs 1 - exp(-kappa · (1 - s_ij)), s their similarity: see `variants`.
    CKA compares the teacher's embeddings of the first n training images of both classes, n the size
    of the smallest class (the authors' script takes its logits or its last map by option); it comes
    from one pass over the images, which is stored with the teacher.
    weight: 1 with 1 · CE, transport 600, T 8, kappa 1 (the published code, which lets the
    transport part alone fall by a cosine after epoch 150 of 240: `transport_decay_after=150`).
    With two classes one is left, and the transport costs nothing.

    temperature: T, above 0. transport: weight of W. transport_decay_after: epochs before it falls
    by a cosine, reaching 0 at the end; 0 keeps it. kappa: sharpness of the costs. regularisation:
    of the entropy penalty, above 0. iterations: Sinkhorn's, at least 1.
    variant: see `variants`.
    classifier: linear layer or 1×1 convolution, instead of the one in the teacher's network.
    similarity: of the classes, `[C, C]`, instead of the one measured for `cka`;
    `kdrun.losses.class_statistics.linear_cka` computes it from embeddings.
    As a criterion: give `classifier`, the teacher's (`teacher.fc`), or `similarity`.
    Raises ConfigError for a teacher whose classifier is no linear layer, and for `cka` with a class
    of a single image.
    """

    id = "wkd_l"
    full_name = "Wasserstein distance of logits"
    formula = (
        "-p_t,y · log p_s,y + transport · Σ_ij π_ij · cost_ij, π = Sinkhorn(q_s, q_t), "
        "cost = 1 - exp(-kappa · (1 - s)), q = softmax(z / T) over the classes other than y; "
        "mean over the batch"
    )
    source = "Lv, Yang, Li 2024, NeurIPS, arXiv 2412.08139, §3.1"
    reads_labels = True
    label_pairs = PER_LABEL
    reads_embedding = True
    variants: ClassVar[Mapping[str, str]] = {
        "classifier": "s: cosine of the classes' rows in the teacher's classifier",
        "cka": "s: linear CKA of the teacher's embeddings of training images of both classes",
    }
    python_only = ("classifier", "similarity")

    def __init__(
        self,
        temperature: Temperature = 8.0,
        transport: NotNegative = 600.0,
        transport_decay_after: CountOrZero = 0,
        kappa: Positive = 1.0,
        regularisation: Positive = 0.05,
        iterations: Count = 10,
        variant: str = "classifier",
        classifier: nn.Linear | nn.Conv2d | None = None,
        similarity: Tensor | None = None,
    ) -> None:
        super().__init__()
        require_variant(type(self), variant)
        self.variant = variant
        self._similarity = similarity
        self.temperature = temperature
        self.transport = transport
        self.transport_decay_after = transport_decay_after
        self.kappa = kappa
        self.regularisation = regularisation
        self.iterations = iterations
        self.share = 1.0
        self._given = () if classifier is None else (classifier,)
        self.cost: Tensor  # [C, C], from `build`
        self.register_buffer("cost", None)

    def arrange(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """Logits alone; a run reads the embedding to find the classifier."""
        (logits,) = self.require_count(tensors, 1, who)
        return Outputs(self.require_logits(logits, who))

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        similarity = self._similarity
        if similarity is None:
            measure = self._measured if self.variant == "cka" else self._of_classifier
            similarity = measure(teacher, context)
        self.cost = transport_costs(full_precision(similarity.detach()), self.kappa)

    def _of_classifier(self, teacher: Outputs, context: LossContext) -> Tensor:
        if not self._given and isinstance(context.teacher, NoNetwork):
            raise ConfigError(
                "loss=wkd_l needs the teacher's classifier: pass it, WKDL(classifier=teacher.fc)."
            )
        (layer,) = self._given or (teacher_classifier(self.id, context.teacher, teacher),)
        return classifier_similarity(full_precision(layer.weight.detach().flatten(1)))

    def _measured(self, teacher: Outputs, context: LossContext) -> Tensor:
        if context.embeddings is None:
            raise ConfigError(
                "loss.wkd_l.variant=cka needs the similarity of the classes, from a trained "
                "teacher: use scheme=offline; in Python pass it, WKDL(similarity=matrix), or "
                "Distiller(train=batches)."
            )
        return context.embeddings.class_similarity()

    def start_epoch(self, epoch: int, epochs: int) -> None:
        self.share = cosine_fall(epoch, epochs, self.transport_decay_after)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]` and labels `[B]`."""
        z_student, z_teacher = full_precision(student.logits), full_precision(teacher.logits)

        def loss(targets: Tensor, shares: Tensor | None) -> Tensor:
            target = weighted_mean(target_cross_entropy(z_student, z_teacher, targets), shares)
            if z_student.shape[1] == 2:
                return target
            distance = self._distance(z_student, z_teacher, targets)
            return target + self.transport * self.share * weighted_mean(distance, shares)

        return mean_over_labels(loss, batch)

    def _distance(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        """W(q_s, q_t) per image, `[B]`, of logits `[B, C]`."""
        return sinkhorn_distance(
            F.softmax(other_logits(student, targets) / self.temperature, dim=1),
            F.softmax(other_logits(teacher, targets) / self.temperature, dim=1),
            other_costs(self.cost.to(student.dtype), targets),
            self.regularisation,
            self.iterations,
        )

    def symbol(self) -> str:
        return f"WKD-L(T={self.temperature:g}, transport={self.transport:g})"


def classifier_similarity(rows: Tensor) -> Tensor:
    """Cosine `[C, C]` of each two rows of a classifier's weight `[C, D]`."""
    rows = unit(rows, dim=1)
    return rows @ rows.T


def transport_costs(similarity: Tensor, kappa: float) -> Tensor:
    """1 - exp(-kappa · (1 - s)) of similarities `[C, C]`, at least `FLOOR`."""
    return (1.0 - torch.exp(-kappa * (1.0 - similarity))).clamp(min=0.0) + FLOOR


def other_costs(cost: Tensor, targets: Tensor) -> Tensor:
    """`[B, C - 1, C - 1]`: costs `[C, C]` between the classes other than each row's label `[B]`."""
    columns = torch.arange(cost.shape[0] - 1, device=cost.device)[None, :]
    kept = columns + (columns >= targets[:, None])
    return cost[kept[:, :, None], kept[:, None, :]]


def sinkhorn_distance(
    student: Tensor, teacher: Tensor, cost: Tensor, regularisation: float, iterations: int
) -> Tensor:
    """Transport cost per row, `[B]`, between distributions `[B, N]` at costs `[B, N, N]`."""
    kernel = torch.exp(-cost / regularisation)
    u = torch.full_like(student, 1.0 / student.shape[1])
    v = torch.ones_like(u)
    for _ in range(iterations):
        v = teacher / (torch.einsum("bij,bi->bj", kernel, u) + FLOOR)
        u = student / (torch.einsum("bij,bj->bi", kernel, v) + FLOOR)
    return torch.einsum("bi,bij,bj->b", u, kernel * cost, v)
