"""A scheme turns a batch into a loss: who teaches whom, in one step.

The loop trains whatever a scheme's parameters are and measures its `network`; it never learns how
many teachers there are. What a scheme keeps outside its parameters (frozen teachers) is neither
trained nor saved.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdrun.losses.objective import Objective
from kdrun.models.taps import Tapped
from kdrun.types import Batch, Outputs, StepOutput


class StudentScheme(nn.Module):
    """Base of the schemes that leave one plain student.

    student: the network being trained. objective: its loss. compiled: run it through the compiler.
    """

    def __init__(self, student: Tapped, objective: Objective, compiled: bool = False) -> None:
        super().__init__()
        self.student = student
        self.objective = objective
        run = torch.compile(student) if compiled else student
        self._run_student: tuple[Callable[[Tensor], Outputs]] = (run,)  # a tuple: not registered

    def start_epoch(self, epoch: int) -> None:
        """Nothing changes from epoch to epoch in the plain schemes."""

    @property
    def network(self) -> nn.Module:
        """The plain student."""
        return self.student.network

    @property
    def measured(self) -> nn.Module:
        """The student as it takes the loader's images."""
        return self.student

    def teach(self, batch: Batch) -> Sequence[Outputs]:
        """What the teachers say of the batch."""
        return ()

    def forward(self, batch: Batch) -> StepOutput:
        """One step's loss for a batch."""
        teachers = self.teach(batch)
        student = self._run_student[0](batch.images)
        loss, parts = self.objective(student, teachers, batch)
        return StepOutput(loss, student.logits, parts)


def freeze(network: nn.Module) -> nn.Module:
    """No gradients, and evaluation mode."""
    network.requires_grad_(False)
    return network.eval()


def ask(teacher: Callable[[Tensor], Outputs], images: Tensor) -> Outputs:
    """A frozen teacher's outputs, without a graph."""
    with torch.no_grad():
        return teacher(images)
