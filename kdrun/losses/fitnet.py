"""FitNet hints: Romero et al., ICLR 2015, arXiv 1412.6550."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.adapters import (
    DEFAULT,
    ORTHOGONAL,
    orthogonal_regressor,
    regressor,
    require_adapter,
    standardised,
)
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


class FitNet(DistillationLoss):
    """Squared difference of a regression of the student's map and the teacher's map.

    The regressor r maps `[B, C_s, H_s, W_s]` to the teacher's `[B, C_t, H_t, W_t]`: one
    convolution, chosen by the ratio of the sizes (see `kdrun.losses.adapters.to_shape`), batch
    normalisation, ReLU. Loss: mean over all elements of (r(f_s) - f_t)², summed over the tap
    pairs, with CE. weight: 100 on the middle stage (the recipe of the tables in Tian et
    al., arXiv 1910.10699).

    variant: see `variants`. `paper` has two stages (§2.3): the student's layers up to the hint are
    trained with eq. 3; then the student learns from labels and soft targets:
    `'loss=[kd,fitnet]'`. The sum of eq. 3 needs an optimiser that divides by the gradient's size:
    Adam here, RMSProp in the paper.
    adapter: `orthogonal` replaces the regressor: the student's map is resized, and its channels are
    projected by an orthogonal matrix; the teacher's channels are standardised over batch and
    places, because the projection cannot scale.
    pretrain_epochs, pretrain_lr: of that first stage; only `paper` uses them.
    As a criterion, `paper` is 0 and `loss.pretrain(student_map, teacher_map)` is the hint loss.
    Raises ConfigError for tokens that fill no square, an unknown variant, and `paper` without
    epochs.
    """

    id = "fitnet"
    full_name = "FitNet hints"
    fixed_sizes = True
    formula = "(r(f_s) - f_t)²; mean over all elements, sum over the tap pairs"
    source = "Romero et al. 2015, ICLR, arXiv 1412.6550, §2.2, eq. 3"
    variants = {  # noqa: RUF012
        "repdistiller": "with CE from the start; r = convolution, BN, ReLU; mean squares",
        "paper": "before the main phase, which is left to the other losses; r = convolution, "
        "ReLU; ½ ‖r(f_s) - f_t‖² per image",
    }

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("stage2",),
        variant: str = "repdistiller",
        pretrain_epochs: CountOrZero = 30,
        pretrain_lr: Positive = 0.005,
        adapter: str = DEFAULT,
    ) -> None:
        super().__init__(taps)
        require_variant(type(self), variant)
        require_adapter(self.id, adapter)
        self.adapter = adapter
        if variant == "paper" and pretrain_epochs < 1:
            raise ConfigError(
                "loss.fitnet.variant=paper trains the hints before the main phase: set "
                "loss.fitnet.pretrain_epochs=30, or use variant=repdistiller."
            )
        self.variant = variant
        self.only_pretrains = variant == "paper"
        self.pretrain_epochs = pretrain_epochs
        self.pretrain_lr = pretrain_lr
        self.regressors = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        norm = self.variant == "repdistiller"
        self.regressors = nn.ModuleList(
            orthogonal_regressor(s, t)
            if self.adapter == ORTHOGONAL
            else regressor(s, t, norm=norm, relu=True)
            for s, t in map_pairs(self, student, teacher)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of each tap pair; 0 in the variant `paper`."""
        if self.variant == "paper":
            return zero_of(student)
        losses = [F.mse_loss(s, t) for s, t in self._regressed(student, teacher)]
        return sum(losses[1:], losses[0])

    def pretraining(self) -> Pretraining | None:
        if self.variant != "paper":
            return None
        return Pretraining(self.pretrain_epochs, self.pretrain_lr, "adam")

    def pretrain_loss(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """½ ‖r(f_s) - f_t‖² (eq. 3), averaged over the images."""
        losses = [
            0.5 * F.mse_loss(s, t, reduction="sum") / len(s)
            for s, t in self._regressed(student, teacher)
        ]
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        when = "; before the main phase" if self.variant == "paper" else ""
        return f"FitNet({tap_names(self)}{when})"

    def _regressed(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        """(regression of the student's map, teacher's map) of each tap pair."""
        pairs = map_pairs(self, student, teacher)
        if self.adapter == ORTHOGONAL:
            pairs = [(s, standardised(t)) for s, t in pairs]
        return [(r(s), t) for r, (s, t) in zip(self.regressors, pairs, strict=True)]
