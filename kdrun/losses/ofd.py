"""Overhaul of feature distillation: Heo et al., ICCV 2019, arXiv 1904.01866."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.adapters import connector
from kdrun.losses.base import DistillationLoss, LossContext, TapRequest
from kdrun.losses.context import NoNetwork
from kdrun.losses.margins import FixedMargin, MeasuredMargin, Norm, batch_norm_before, margin_of
from kdrun.losses.shapes import map_pairs, tap_names, to_smaller
from kdrun.types import Batch, Outputs

MARGINS = ("auto", "batch_norm", "measured")


class FeatureOverhaul(DistillationLoss):
    """Partial squared difference of pre-activations: negative values only need to stay negative.

    A 1×1 convolution and batch normalisation give the student's map the teacher's width. The
    teacher's map is t' = max(t, m), with a margin m < 0 per channel: the mean of its negative
    values. Per element (paper §3): 0 where t' ≤ 0 and s ≤ t', else (s - t')²; summed
    over channels and places, mean over the batch. Stage i of L weighs 2^(i-L), so that the last one
    weighs 1. The larger of two maps is averaged down to the smaller. The teacher is in evaluation
    mode, unlike in the authors' code, where its statistics drift. weight: 0.001 (the authors'
    CIFAR-100 code; 0.0001 on ImageNet).

    As a criterion: give `norms`, the teacher's BatchNorm before each tap, for computed margins;
    without them the margins are measured on the first 100 batches in training mode.

    margins: `batch_norm` computes them from the teacher's batch normalisation before the tap, as
    the paper does; `measured` takes the mean of the negative values of the first 100 batches;
    `auto` computes where a batch normalisation is found and measures elsewhere (layer
    normalisation, plain linear layers).
    norms: a BatchNorm per tap (None: measure), instead of those found in the teacher's network.
    Raises ConfigError for `batch_norm` where none is found, and for any other value.
    """

    id = "ofd"
    full_name = "Overhaul of feature distillation"
    formula = (
        "Σ_i 2^(i-L) · (r(f_s) - max(f_t, m))², 0 where max(f_t, m) ≤ 0 and r(f_s) is below it; "
        "sum over channels and places, mean over the batch; m = E[f_t given f_t < 0] per channel"
    )
    source = "Heo et al. 2019, ICCV, arXiv 1904.01866, §3"

    python_only = ("norms",)

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("stages_pre",),
        margins: str = "auto",
        norms: Sequence[Norm | None] | None = None,
    ) -> None:
        super().__init__(taps)
        if margins not in MARGINS:
            raise ConfigError(
                f"loss.ofd.margins={margins} does not exist: use {', '.join(MARGINS)}."
            )
        self.margin_source = margins
        self._norms = None if norms is None else tuple(norms)  # a tuple: not registered
        self.connectors = nn.ModuleList()
        self.margins = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        pairs = map_pairs(self, student, teacher)
        self.connectors = nn.ModuleList(connector(s.shape[1], t.shape[1]) for s, t in pairs)
        if self._norms is not None and len(self._norms) != len(pairs):
            raise ConfigError(
                f"loss=ofd: norms has {len(self._norms)} entries for {len(pairs)} feature pairs: "
                "give one BatchNorm or None for each."
            )
        self.margins = nn.ModuleList(
            self._margin(number, t.shape[1], context) for number, (_, t) in enumerate(pairs)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of each tap pair."""
        losses = []
        pairs = map_pairs(self, student, teacher)
        for connect, margin, (s, t) in zip(self.connectors, self.margins, pairs, strict=True):
            s, t = to_smaller(s, t)
            losses.append(partial_squares(connect(s), torch.maximum(t, margin(t))))
        last = len(losses) - 1
        weighted = [2.0 ** (i - last) * loss for i, loss in enumerate(losses)]
        return sum(weighted[1:], weighted[0])

    def symbol(self) -> str:
        return f"OFD({tap_names(self)})"

    def _margin(self, number: int, channels: int, context: LossContext) -> nn.Module:
        tap = self.pairs[number][1]
        if self.margin_source == "measured":
            return MeasuredMargin(channels)
        if self._norms is not None:
            norm = self._norms[number]
        elif isinstance(context.teacher, NoNetwork):
            norm = None
        else:
            norm = batch_norm_before(context.teacher, tap, channels)
        if norm is not None:
            return FixedMargin(margin_of(norm))
        if self.margin_source == "batch_norm":
            raise ConfigError(
                f"loss.ofd.margins=batch_norm: there is no batch normalisation with {channels} "
                f"channels before the teacher's {tap}. Use loss.ofd.margins=auto, or a tap before "
                "an activation."
            )
        return MeasuredMargin(channels)


def partial_squares(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum per image, mean over the batch, of (s - t)² except where t ≤ 0 and s ≤ t."""
    counted = (teacher > 0) | (student > teacher)
    squares = torch.where(counted, (student - teacher).square(), 0.0)
    return squares.sum() / len(student)
