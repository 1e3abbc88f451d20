"""A scheme turns a batch into a loss: who teaches whom, in one step.

The loop trains whatever a scheme's parameters are and measures its `network`; it never learns how
many teachers there are. What a scheme keeps outside its parameters (frozen teachers) is neither
trained nor saved.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdrun.data.strong_view import strong_view
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

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Weights and terms may follow the epoch."""
        self.objective.start_epoch(epoch, epochs)

    def after_step(self) -> None:
        """The optimiser has used the gradients of the last forward."""
        for term in self.objective.term_list():
            term.after_step()

    @property
    def network(self) -> nn.Module:
        """The plain student."""
        return self.student.network

    @property
    def measured(self) -> nn.Module:
        """The student as it takes the loader's images."""
        return self.student

    def teach(self, images: Tensor) -> Sequence[Outputs]:
        """What the teachers say of images `[B, ...]`, without a graph."""
        return ()

    def see(self, batch: Batch) -> tuple[Outputs, Sequence[Outputs]]:
        """(student's outputs, each teacher's), of every view that the objective reads."""
        student = self._run_student[0](batch.images)
        teachers = self.teach(batch.images)
        if self.objective.reads_strong_view:
            strong = strong_view(batch.images)
            student.strong = self._run_student[0](strong)
            for teacher, outputs in zip(teachers, self.teach(strong), strict=True):
                teacher.strong = outputs
        return student, teachers

    def forward(self, batch: Batch) -> StepOutput:
        """One step's loss for a batch."""
        student, teachers = self.see(batch)
        loss, parts = self.objective(student, teachers, batch)
        weighed = self.objective.weigh(parts)
        logged = {name: value.detach() for name, value in parts.items()}
        logged |= {f"{name}_weighted": value.detach() for name, value in weighed.items()}
        distil = [value for name, value in weighed.items() if name != "ce"]
        groups = {"task": weighed["ce"]}
        if distil:
            groups["distill"] = torch.stack(distil).sum()
        return StepOutput(loss, student.logits, logged, groups)


def freeze(network: nn.Module) -> nn.Module:
    """No gradients, and evaluation mode."""
    network.requires_grad_(False)
    return network.eval()


def ask(teacher: Callable[[Tensor], Outputs], images: Tensor) -> Outputs:
    """A frozen teacher's outputs, without a graph."""
    with torch.no_grad():
        return teacher(images)
