"""Flow of the solution procedure: Yim et al., CVPR 2017."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.adapters import connector
from kdrun.losses.base import (
    DistillationLoss,
    LossContext,
    Pretraining,
    TapRequest,
    require_variant,
)
from kdrun.losses.shapes import map_pairs, pooled, smaller_size, tap_names, zero_of
from kdrun.ranges import CountOrZero, Positive
from kdrun.types import Batch, Outputs

Maps = list[tuple[Tensor, Tensor]]


class SolutionFlow(DistillationLoss):
    """Squared difference of the products of consecutive maps, trained before the main phase.

    The FSP matrix `[B, C_i, C_j]` of two consecutive taps is the product of their maps over the
    places, divided by H·W; the larger of the two is averaged down to the smaller (paper §3.2,
    eq. 1). Loss: mean over all elements of (G_s - G_t)², summed over consecutive taps. It moves
    the student's layers up to the last tap and leaves the main phase to the other losses. Sizes may
    differ between the networks, widths may not. weight: 50 (the recipe of the tables in Tian et
    al., arXiv 1910.10699, which take `taps=[stem,stages]`); it has no effect while pre-training.

    connectors: project the student's maps to the teacher's widths with 1×1 convolutions and batch
    normalisation where they differ. Not in the paper.
    variant: see `variants`. The sums of `paper` are hundreds of times the means of the default:
    give it a small rate, e.g. pretrain_lr=0.0001.
    pretrain_epochs, pretrain_lr: of the first phase (lr None: the student's); with 0 epochs, the
    default in Python (30 in runs), there is none and the loss is minimised with the others. With
    more, a criterion is 0 and `loss.pretrain(student_features, teacher_features)` is the loss.
    Raises ConfigError for fewer than two taps, for unequal widths without connectors, and for a
    variant that does not exist.
    """

    id = "fsp"
    full_name = "Flow of the solution procedure"
    formula = (
        "(G_s - G_t)², G = f_i · f_jᵀ / (H·W) of consecutive taps; mean over all elements, sum "
        "over consecutive taps; minimised before the main phase"
    )
    source = "Yim et al. 2017, CVPR, §3.2-3.3, eq. 1-2"
    variants = {  # noqa: RUF012
        "repdistiller": "average pooling to the smaller map; mean of the squares",
        "paper": "max pooling to the smaller map; squares summed per image",
    }

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("stages",),
        variant: str = "repdistiller",
        connectors: bool = False,
        pretrain_epochs: CountOrZero = 0,
        pretrain_lr: Positive | None = None,
    ) -> None:
        super().__init__(taps)
        require_variant(type(self), variant)
        self.variant = variant
        self.connects = connectors
        self.pretrain_epochs = pretrain_epochs
        self.only_pretrains = pretrain_epochs > 0
        self.pretrain_lr = pretrain_lr
        self.connectors = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        pairs = map_pairs(self, student, teacher)
        if len(pairs) < 2:
            raise ConfigError(
                f"loss=fsp multiplies consecutive taps, but there is only {tap_names(self)}: name "
                "at least two that both networks have, e.g. loss.fsp.taps=[stem,stages]."
            )
        unequal = [
            f"{a} {list(s.shape)} and {b} {list(t.shape)}"
            for (a, b), (s, t) in zip(self.pairs, pairs, strict=True)
            if s.shape[1] != t.shape[1]
        ]
        if unequal and not self.connects:
            raise ConfigError(
                "loss=fsp needs student and teacher of equal widths, and these differ: "
                f"{'; '.join(unequal)}. Use loss.fsp.connectors=true, or another loss (at, vid)."
            )
        self.connectors = nn.ModuleList(
            nn.Identity() if s.shape[1] == t.shape[1] else connector(s.shape[1], t.shape[1])
            for s, t in pairs
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
        maps = [(c(s), t) for c, (s, t) in zip(self.connectors, pairs, strict=True)]
        max_pool = self.variant == "paper"
        losses = []
        for (s, t), (next_s, next_t) in pairwise(maps):
            squares = (fsp_matrix(s, next_s, max_pool) - fsp_matrix(t, next_t, max_pool)).square()
            losses.append(squares.sum((1, 2)).mean() if max_pool else squares.mean())
        return sum(losses[1:], losses[0])

    def symbol(self) -> str:
        when = "; before the main phase" if self.pretrain_epochs > 0 else ""
        return f"FSP({tap_names(self)}{when})"


def fsp_matrix(first: Tensor, second: Tensor, max_pool: bool = False) -> Tensor:
    """`[B, C_1, C_2]` of two maps `[B, C, H, W]` of one network."""
    size = smaller_size(first, second)
    pool = F.adaptive_max_pool2d if max_pool else pooled
    a, b = (pool(f, size).flatten(2) for f in (first, second))
    return a @ b.mT / a.shape[2]
