"""Curriculum temperature: Li et al., AAAI 2023, arXiv 2211.16231."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.config.rules import one_of
from kdrun.losses.base import PER_LABEL, DistillationLoss
from kdrun.losses.dkd import decoupled_loss
from kdrun.losses.kd import soft_target_loss
from kdrun.losses.label_pairs import mean_over_labels
from kdrun.ranges import CountOrZero, NotNegative, Positive
from kdrun.types import Batch, Outputs

BASES = ("kd", "dkd")


class CurriculumTemperature(DistillationLoss):
    """`kd` (or `dkd`) of logits `[B, C]` at a temperature T that is learned adversarially.

    T = t_start + t_range · sigmoid(θ), θ learned from 1 by the student's optimiser. A gradient
    reversal multiplies θ's gradient by -λ, so that T maximises the loss the student minimises.
    λ follows half a cosine from 0 to `lambda_max` over the first `lambda_epochs` epochs,
    counted from 1. The factor T² is part of the graph, as in the authors' code. weight:
    alpha, 0.9 as published. This is the paper's global temperature; one per image is not offered.

    As a criterion: call `loss.start_epoch(epoch, epochs)` before each epoch (from 0), which raises
    λ; without it λ is 0 and T stays. θ is a parameter of the loss: give it to the optimiser.

    t_start, t_range: T lies between t_start and t_start + t_range.
    lambda_max, lambda_epochs: strength of the reversal, and epochs until it is reached.
    base: kd | dkd, the loss whose temperature is learned (dkd with alpha 1 and its usual beta 8).
    standardise: compare z-scores of the logits instead (as in `logit_std`).
    """

    id = "ctkd"
    full_name = "Curriculum temperature"
    formula = (
        "max over θ, min over the student: T² · KL(p_t ‖ p_s) at T = t_start + t_range · "
        "sigmoid(θ); θ's gradient times -λ(epoch); sum over classes, mean over the batch"
    )
    source = "Li, Li, Yang, Zhao, Song, Luo, Li, Yang 2023, AAAI, arXiv 2211.16231"
    soft = True
    label_pairs = PER_LABEL
    strength: Tensor

    def __init__(
        self,
        t_start: Positive = 1.0,
        t_range: NotNegative = 20.0,
        lambda_max: NotNegative = 1.0,
        lambda_epochs: CountOrZero = 10,
        base: str = "kd",
        standardise: bool = False,
    ) -> None:
        super().__init__()
        one_of("loss.ctkd.base", base, BASES)
        self.t_start = t_start
        self.t_range = t_range
        self.lambda_max = lambda_max
        self.lambda_epochs = lambda_epochs
        self.base = base
        self.reads_labels = base == "dkd"
        self.standardise = standardise
        self.theta = nn.Parameter(torch.ones(()))
        self.register_buffer("strength", torch.tensor(0.0))

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """λ of epoch number `epoch` (from 0): λ_max · (1 - cos(π · share)) / 2."""
        share = min((epoch + 1) / self.lambda_epochs, 1.0) if self.lambda_epochs > 0 else 1.0
        self.strength.fill_(self.lambda_max * (1.0 - math.cos(math.pi * share)) / 2.0)

    def current_temperature(self) -> Tensor:
        """T, a scalar whose gradient reaches θ times -λ."""
        theta: Tensor = Reversal.apply(self.theta, self.strength)
        return self.t_start + self.t_range * torch.sigmoid(theta)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`; labels `[B]` for base dkd."""
        temperature = self.current_temperature()
        z_student, z_teacher = student.logits, teacher.logits
        if self.base == "kd":
            return soft_target_loss(z_student, z_teacher, temperature, self.standardise)

        def loss(targets: Tensor, shares: Tensor | None) -> Tensor:
            return decoupled_loss(
                z_student, z_teacher, targets, temperature, (1.0, 8.0), self.standardise, shares
            )

        return mean_over_labels(loss, batch)

    def symbol(self) -> str:
        name = "T²*KL" if self.base == "kd" else "DKD"
        note = ", z-scores" if self.standardise else ""
        return f"{name}(T learned in {self.t_start:g}..{self.t_start + self.t_range:g}{note})"


class Reversal(torch.autograd.Function):
    """The identity; its gradient is multiplied by -strength."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, strength: Tensor) -> Tensor:
        """`value` itself; strength is a scalar tensor."""
        ctx.save_for_backward(strength)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Reverse the gradient."""
        (strength,) = ctx.saved_tensors
        return -strength * gradients[0], None
