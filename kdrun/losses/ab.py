"""Activation boundaries: Heo et al., AAAI 2019, arXiv 1811.03233."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.losses.adapters import regressor
from kdrun.losses.base import (
    DistillationLoss,
    LossContext,
    Pretraining,
    TapRequest,
    require_variant,
)
from kdrun.losses.shapes import map_pairs, tap_names, zero_of
from kdrun.ranges import CountOrZero, Positive
from kdrun.types import Batch, Outputs

SCALE = 3.0 / 1000.0  # of the authors' code


class ActivationBoundaries(DistillationLoss):
    """Squared hinge that puts the student's neurons on the teacher's side of zero, by a margin.

    On pre-activations `[B, C, H, W]`; a connector gives the student's the teacher's shape. Per
    element, as in the paper's alternative loss: t > 0 and s ≤ m → (s - m)²; t ≤ 0 and s > -m →
    (s + m)²; summed over channels and places, mean over the batch, times 3/1000. Stage i of L
    weighs 2^(i-L), so that the last one weighs 1. weight: 1 (the recipe of the tables in Tian et
    al., arXiv 1910.10699).

    Minimised before the main phase, where the weight has no effect: it trains the student's layers
    up to the last tap; the other losses train all layers afterwards. The paper continues with soft
    targets, `'loss=[kd,ab]'`, the published tables with labels only.

    margin: m, above 0.
    variant: see `variants`.
    pretrain_epochs, pretrain_lr: of the first phase (lr None: the student's); with 0 epochs, the
    default in Python (30 in runs), there is none and the loss is minimised with the others. With
    more, a criterion is 0 and `loss.pretrain(student_features, teacher_features)` is the loss.
    Raises ConfigError for a margin of 0 or less and a variant that does not exist.
    """

    id = "ab"
    full_name = "Activation boundaries"
    fixed_sizes = True
    formula = (
        "3/1000 · Σ_i 2^(i-L) · (s - m)² where t > 0, s ≤ m, and (s + m)² where t ≤ 0, s > -m; sum "
        "over channels and places, mean over the batch; minimised before the main phase"
    )
    source = "Heo et al. 2019, AAAI, arXiv 1811.03233"
    variants = {  # noqa: RUF012
        "repdistiller": "no connector where the shapes agree already",
        "paper": "a connector (convolution, BN) at every tap",
    }

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("stages_pre",),
        margin: Positive = 1.0,
        variant: str = "repdistiller",
        pretrain_epochs: CountOrZero = 0,
        pretrain_lr: Positive | None = None,
    ) -> None:
        super().__init__(taps)
        require_variant(type(self), variant)
        self.margin = margin
        self.variant = variant
        self.pretrain_epochs = pretrain_epochs
        self.only_pretrains = pretrain_epochs > 0
        self.pretrain_lr = pretrain_lr
        self.connectors = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        always = self.variant == "paper"
        self.connectors = nn.ModuleList(
            nn.Identity()
            if s.shape == t.shape and not always
            else regressor(s, t, norm=True, relu=False)
            for s, t in map_pairs(self, student, teacher)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """0 after pre-training, else the loss."""
        if self.pretrain_epochs > 0:
            return zero_of(student)
        return self.pretrain_loss(student, teacher, batch)

    def pretraining(self) -> Pretraining | None:
        return Pretraining(self.pretrain_epochs, self.pretrain_lr)

    def pretrain_loss(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of each tap pair."""
        pairs = map_pairs(self, student, teacher)
        losses = [
            boundary_loss(connector(s), t, self.margin)
            for connector, (s, t) in zip(self.connectors, pairs, strict=True)
        ]
        last = len(losses) - 1
        weighted = [2.0 ** (i - last) * loss for i, loss in enumerate(losses)]
        return SCALE * sum(weighted[1:], weighted[0])

    def symbol(self) -> str:
        when = "; before the main phase" if self.pretrain_epochs > 0 else ""
        return f"AB({tap_names(self)}{when})"


def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Squared hinge of pre-activations `[B, C, H, W]`: sum per image, mean over the batch."""
    side = torch.where(teacher > 0, 1.0, -1.0)
    return (margin - side * student).clamp_min(0.0).square().sum() / len(student)
