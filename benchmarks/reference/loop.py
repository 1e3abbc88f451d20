"""The usual loop: what most distillation code does, written plainly, to compare with.

A DataLoader over PIL images with per-image transforms, networks in torch's default layout, the
teacher run at every step, losses and accuracies read as Python numbers at every step. It is meant
to be a fair picture, not a slow one: no augmentation, meter or copy that a person would leave out,
and the loader reads in this process, which is quickest where CPU cores are few, or on a GPU in up
to eight workers with pinned memory; image files that kdrun streams are decoded by as many workers
as kdrun has. Whole batches are mixed, as by most code.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from kdrun.engine.timing import PhaseClock
from kdrun.losses.label_pairs import soft_labels
from kdrun.types import Batch, to_device

LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
Forward = Callable[[Batch], tuple[Tensor, Tensor]]


def soft_target_objective(temperature: float, alpha: float, ce: float) -> LossFunction:
    """`(student logits, teacher logits, labels) → ce · CE + alpha · T² · KL`, as it is mostly
    written: `kl_div` of a log-softmax and a softmax."""

    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        hard = F.cross_entropy(student, targets)
        soft = F.kl_div(
            F.log_softmax(student / temperature, dim=1),
            F.softmax(teacher / temperature, dim=1),
            reduction="sum",
        )
        return ce * hard + alpha * soft * temperature**2 / student.shape[0]

    return loss


def plain_forward(student: nn.Module, teacher: nn.Module, loss: LossFunction) -> Forward:
    """Student and frozen teacher as plain networks, images → logits."""
    student.train()
    teacher.eval()

    def forward(batch: Batch) -> tuple[Tensor, Tensor]:
        logits = student(batch.images)
        with torch.no_grad():
            teacher_logits = teacher(batch.images)
        targets = batch.targets
        if batch.mixture is not None:
            targets = soft_labels(batch, logits.shape[1], 0.0, logits.dtype)
        return loss(logits, teacher_logits, targets), logits

    return forward


class UsualLoop:
    """One step at a time, with the meters that such code keeps.

    forward: batch → (loss, student's logits). clock: told when the backward pass begins.
    """

    def __init__(
        self, forward: Forward, optimizer: optim.Optimizer, device: torch.device, clock: PhaseClock
    ) -> None:
        self.forward = forward
        self.optimizer = optimizer
        self.device = device
        self.clock = clock
        self.loss_sum = 0.0
        self.correct1 = self.correct5 = 0.0

    def step(self, batch: Batch) -> float:
        """One step; returns the loss."""
        batch = to_device(batch, self.device)
        loss, logits = self.forward(batch)
        answers = logits.topk(min(5, logits.shape[1]), dim=1).indices == batch.targets[:, None]
        value = float(loss.item())
        self.loss_sum += value * len(batch)
        self.correct1 += answers[:, 0].sum().item()
        self.correct5 += answers.sum().item()
        self.optimizer.zero_grad()
        self.clock.start("backward")
        loss.backward()
        self.optimizer.step()
        return value
