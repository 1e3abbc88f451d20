"""One for all: Hao et al., NeurIPS 2023, arXiv 2310.19444."""

import re
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.losses.base import PER_LABEL, DistillationLoss, LossContext, full_precision
from kdrun.losses.context import NetworkView
from kdrun.losses.exits import make_exit
from kdrun.losses.label_pairs import mean_over_labels, weighted_mean
from kdrun.models.features.pairs import expand_tap
from kdrun.models.vit import PatchMap
from kdrun.ranges import NotNegative, Range, Temperature
from kdrun.types import Batch, InputInfo, Outputs


class OneForAll(DistillationLoss):
    """L(z_s) + exits · Σ_i L(z_i), z_i the logits of an exit behind each of the student's stages.

    L(z) = -Σ_c [(p_t,c + 1_c=y)^epsilon - 1_c=y] · log p_c, averaged over the batch, with p =
    softmax(z / T). With epsilon 1 it is the cross-entropy with the teacher and needs no labels.
    Above 1, the target class counts the more, the surer the teacher is of it. Only the teacher's
    logits are read, so any architecture teaches any other: CNN, ViT, MLP.

    The exits are trained with the student and not exported. Behind a map: separable convolutions
    of stride 2, one pair per later stage; behind tokens: transformer blocks; behind units: linear
    layers (see `kdrun.losses.exits`). A ViT's exits read its tokens. weight: 1 with 1 · CE,
    epsilon 1 and T 1, the authors' values on CIFAR-100 (epsilon up to 1.5 on ImageNet). As in the
    authors' code there is no T². Theirs makes convolutional exits as wide as the wider network.

    taps: the student's; `stages` is every stage. epsilon: of the target, above 0.
    exits: weight of the exits. temperature: T, above 0.
    As a criterion: `loss([map_1, ..., map_n, student_logits], teacher_logits, targets)`.
    Raises ConfigError for features without an exit.
    """

    id = "ofa"
    full_name = "One for all"
    formula = (
        "L(z_s) + exits · Σ_i L(z_i), L(z) = -Σ_c [(p_t,c + 1_c=y)^epsilon - 1_c=y] · log p_c, "
        "p = softmax(z / T), z_i = logits of exit i; mean over the batch"
    )
    source = "Hao et al. 2023, NeurIPS, arXiv 2310.19444, §3.3; exits as in the authors' code"
    label_pairs = PER_LABEL

    def __init__(
        self,
        taps: Sequence[str] = ("stages",),
        epsilon: Annotated[float, Range(above=0, high=100)] = 1.0,
        exits: NotNegative = 1.0,
        temperature: Temperature = 1.0,
    ) -> None:
        super().__init__()
        self.requested = [taps] if isinstance(taps, str) else list(taps)
        self.student_taps = self.requested
        self.names: list[str] = []
        self.later: list[int] = []  # number of the student's stages behind each tap
        self.epsilon = epsilon
        self.reads_labels = epsilon != 1.0
        self.exit_weight = exits
        self.temperature = temperature
        self.exits = nn.ModuleList()

    def request_taps(self, student: NetworkView, teacher: NetworkView, info: InputInfo) -> None:
        names = list(
            dict.fromkeys(
                name for tap in self.requested for name in expand_tap(tap, student.paths, "student")
            )
        )
        stages = [name for name in student.paths if re.fullmatch(r"stage\d+", name)]
        self.names = names
        self.later = [
            len(stages) - 1 - stages.index(name) if name in stages else len(names) - 1 - number
            for number, name in enumerate(names)
        ]
        self.student_taps = [_tokens_of(student, name) for name in names]

    def arrange(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """The student's features and logits; the teacher's logits."""
        if who == "teacher":
            (logits,) = self.require_count(tensors, 1, who)
            return Outputs(self.require_logits(logits, who))
        *features, logits = tensors
        count = len(features)
        self.student_taps = self.names = [f"features {number}" for number in range(1, count + 1)]
        self.later = list(range(count - 1, -1, -1))
        named = dict(zip(self.student_taps, features, strict=True))
        return Outputs(self.require_logits(logits, who), named)

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        features = [full_precision(student.features[tap]) for tap in self.student_taps]
        last = features[-1] if features else None
        width = 0
        if last is not None:  # as wide as the last stage, whose channels usually double by stage
            width = last.shape[1] * 2 ** (self.later[-1] if last.dim() == 4 else 0)
        self.exits = nn.ModuleList(
            make_exit(tensor, width, later, student.logits.shape[1], name)
            for name, tensor, later in zip(self.names, features, self.later, strict=True)
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from two sets of logits `[B, C]`, the student's features and labels `[B]`."""
        p_teacher = F.softmax(full_precision(teacher.logits) / self.temperature, dim=1)
        logits = [
            leave(full_precision(student.features[tap]))
            for tap, leave in zip(self.student_taps, self.exits, strict=True)
        ]
        loss = self._target_loss(full_precision(student.logits), p_teacher, batch)
        if not logits:
            return loss
        at_exits = torch.stack([self._target_loss(z, p_teacher, batch) for z in logits]).sum()
        return loss + self.exit_weight * at_exits

    def _target_loss(self, logits: Tensor, p_teacher: Tensor, batch: Batch) -> Tensor:
        """L of logits `[B, C]`."""
        log_p = F.log_softmax(logits / self.temperature, dim=1)
        if not self.reads_labels:
            return -(p_teacher * log_p).sum(dim=1).mean()

        def loss(targets: Tensor, shares: Tensor | None) -> Tensor:
            label = F.one_hot(targets, logits.shape[1]).to(p_teacher.dtype)
            target = (p_teacher + label).pow(self.epsilon) - label
            return weighted_mean(-(target * log_p).sum(dim=1), shares)

        return mean_over_labels(loss, batch)

    def symbol(self) -> str:
        return f"OFA({'+'.join(self.names or self.requested)}, epsilon={self.epsilon:g})"


def _tokens_of(student: NetworkView, tap: str) -> str:
    """The tap with the tokens, where `tap` only arranges them as a map."""
    path = student.paths.get(tap, tap)
    return f"{path}:in" if isinstance(student.module(tap), PatchMap) else tap
