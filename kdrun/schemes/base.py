"""A scheme turns a batch into a loss: it defines which network teaches which.

The loop trains whatever a scheme's parameters are and measures its `network`; it never learns how
many teachers there are. What a scheme keeps outside its parameters (frozen teachers) is neither
trained nor saved.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdrun.data.loaders.strong_view import strong_view_of
from kdrun.losses.objective import Objective
from kdrun.models.compiled import begin_step, compile_network, compile_seconds
from kdrun.models.features.taps import FeatureExtractor
from kdrun.models.quantisation.arithmetic import Quantisers
from kdrun.schemes.measured import AuxiliaryModel
from kdrun.types import Batch, BatchKeys, Outputs, StepOutput


class StudentScheme(nn.Module):
    """Base class of schemes.

    student: the network being trained. objective: its loss. compiled: run it through the compiler.
    reads_partner: whether every batch must hold `Batch.partner`.
    trains_peers: whether `scheme.peers` is read.
    """

    reads_partner: ClassVar[bool] = False
    trains_peers: ClassVar[bool] = False

    def __init__(
        self, student: FeatureExtractor, objective: Objective, compiled: bool = False
    ) -> None:
        super().__init__()
        self.student = student
        self.objective = objective
        self.compiled = compiled
        run = compile_network(student) if compiled else student
        self._quantisers: tuple[Quantisers, ...] | None = None  # a tuple: not registered twice
        self._run_student: tuple[Callable[[Tensor], Outputs]] = (run,)  # a tuple: not registered

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Update loss weights that depend on the epoch."""
        self.objective.start_epoch(epoch, epochs)

    def start_step(self, done: float) -> None:
        """Tell quantised networks which share of the training is done."""
        if self._quantisers is None:
            self._quantisers = tuple(m for m in self.modules() if isinstance(m, Quantisers))
        for quantisers in self._quantisers:
            quantisers.done = done

    def after_step(self) -> None:
        """Called after each batch, and after the optimiser step that it completes."""
        for loss in self.objective.loss_list():
            loss.after_step()

    @property
    def network(self) -> nn.Module:
        """The plain student."""
        return self.student.network

    @property
    def measured(self) -> nn.Module:
        """The student, for the loader's images."""
        return self.student

    def describe(self) -> str:
        """The objective as text, e.g. `0.1*CE + 0.9*16*KL(T=4)`."""
        return self.objective.describe()

    def notes(self) -> list[str]:
        """Notes for the header of a run."""
        return []

    def facts(self) -> dict[str, Any]:
        """Further entries of `result.json`, known before training."""
        return {}

    def companions(self) -> list[AuxiliaryModel]:
        """Further models to measure after training: peers, branches, exits, ensembles."""
        return []

    @property
    def compile_seconds(self) -> float:
        """Compile time of student and frozen teachers; 0 if nothing is compiled."""
        return compile_seconds((*self._run_student, *self.frozen_teachers))

    @property
    def frozen_teachers(self) -> Sequence[Any]:
        """Teachers that are not trained, images → `Outputs`."""
        return ()

    def teacher_outputs(self, batch: Batch) -> Sequence[Outputs]:
        """Each teacher's outputs for the batch, without a graph."""
        return ()

    def forward_networks(self, batch: Batch) -> tuple[Outputs, Sequence[Outputs]]:
        """(student's outputs, each teacher's), of every view that the objective reads."""
        begin_step()
        student = self._run_student[0](batch.images)
        teachers = self.teacher_outputs(batch)
        if self.objective.reads_strong_view:
            strong_images = strong_view_of(batch)
            strong = replace(batch, images=strong_images, keys=None, teacher_images=None)
            student.strong = self._run_student[0](strong.images)
            for teacher, outputs in zip(teachers, self.teacher_outputs(strong), strict=True):
                teacher.strong = outputs
        return student, teachers

    def forward(self, batch: Batch) -> StepOutput:
        """One step's loss for a batch."""
        student, teachers = self.forward_networks(batch)
        return self.step(student, teachers, batch)

    def step(self, student: Outputs, teachers: Sequence[Outputs], batch: Batch) -> StepOutput:
        """The loss of outputs that `forward_networks` returned."""
        _, parts = self.objective(student, teachers, batch)
        output = step_output(student.logits, [("", parts, self.objective.weigh(parts))])
        if self.objective.splits_target:
            output.groups["target"] = self.objective.target_loss(student, teachers, batch)
        return output


# (prefix of the names, unweighted parts, weighted parts) of one objective's value.
Value = tuple[str, dict[str, Tensor], dict[str, Tensor]]


def step_output(logits: Tensor, values: Sequence[Value]) -> StepOutput:
    """The output of a step whose loss is the sum of the weighted parts of several objectives.

    logits: `[B, C]` of the plain student. Parts of one name are added up.
    """
    logged: dict[str, Tensor] = {}
    task: list[Tensor] = []
    distil: list[Tensor] = []
    losses: dict[str, Tensor] = {}
    for prefix, parts, weighed in values:
        for suffix, group in (("", parts), ("_weighted", weighed)):
            for name, value in group.items():
                key = f"{prefix}{name}{suffix}"
                logged[key] = logged[key] + value.detach() if key in logged else value.detach()
        for name, value in weighed.items():
            (task if name == "ce" else distil).append(value)
            losses[name] = losses[name] + value if name in losses else value
    loss = torch.stack([*task, *distil]).sum()
    groups = {}
    if task:  # none without labels
        groups["task"] = torch.stack(task).sum()
    if distil:
        groups["distill"] = torch.stack(distil).sum()
    return StepOutput(loss, logits, logged, groups, losses)


def freeze(network: nn.Module) -> nn.Module:
    """Disable gradients and set evaluation mode."""
    network.requires_grad_(False)
    network.eval()
    return network


def teacher_forward(
    teacher: Callable[..., Outputs], images: Tensor, keys: BatchKeys | None
) -> Outputs:
    """A frozen teacher's outputs for images `[B, ...]`, without a graph.

    keys: of the batch; passed on to a teacher with a true attribute `reads_keys`.
    """
    with torch.no_grad():
        return teacher(images, keys) if getattr(teacher, "reads_keys", False) else teacher(images)
