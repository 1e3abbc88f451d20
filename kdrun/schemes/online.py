"""Deep mutual learning: networks that are all trained at once and teach each other.

Source: Zhang, Xiang, Hospedales and Lu 2018, arXiv 1706.00384.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from kdrun.data.loaders.strong_view import strong_view
from kdrun.errors import ConfigError
from kdrun.losses.objective import Objective
from kdrun.models.compiled import compile_network
from kdrun.models.features.pairs import pair_taps
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.base import StudentScheme, step_output
from kdrun.schemes.context import (
    SchemeContext,
    TrainableNetwork,
    require_one_phase,
    require_variant,
)
from kdrun.schemes.measured import AuxiliaryModel, MeanAnswer, mean_logits
from kdrun.types import Batch, Outputs, StepOutput

VARIANTS = {
    "each": "every other peer is a teacher; the terms are averaged over them",
    "mean": "one teacher: the mean of the other peers' probabilities (the paper's DML_e)",
}


@dataclass(frozen=True)
class Lesson:
    """What one peer learns from some others, which count as one teacher.

    learner, teachers: numbers of peers, from 0. share: of this lesson in the learner's loss.
    """

    learner: int
    teachers: tuple[int, ...]
    objective: Objective
    share: float


def online(given: SchemeContext, variant: str = "each") -> "Online":
    """Every peer minimises the objective with the other peers as its teachers.

    For peer i of K: L_i = ce · CE_i + 1/(K-1) · Σ_j≠i Σ_terms weight · term(i, j), where the
    outputs of j are constants; with `loss=kd` that is ce · CE_i + weight · T² · mean_j KL(p_j ‖
    p_i). What is minimised is Σ_i L_i, in one step from one forward of all peers. The paper updates
    its peers in turn, each after a new forward of those before it; here all of them move at once,
    so that no peer is served before another and a step costs one forward each.

    scheme.peers: who learns beside the student, which is peer 1.
    Terms on features have adapters of their own for every pair of peers.
    variant: each | mean (needs losses on logits that share one temperature).
    Raises ConfigError for losses that need a finished teacher, and for fewer than two peers.
    """
    require_variant("online", variant, tuple(VARIANTS))
    require_one_phase(given.objective, "online")
    learners = (given.student, *given.peers)
    if len(learners) < 2:
        raise ConfigError(
            "scheme=online needs peers: 'scheme.peers=[student]' for another network like the "
            "student, or names, e.g. 'scheme.peers=[resnet20]'."
        )
    lessons = _lessons(given, len(learners), variant)
    if variant == "mean":
        _require_one_temperature(given.objective)
    return Online(learners, _tap(given, learners, lessons), lessons, given.compiled)


class Online(StudentScheme):
    """Peers that teach each other; peer 1 is the student that is kept."""

    trains_peers: ClassVar[bool] = True

    def __init__(
        self,
        learners: Sequence[TrainableNetwork],
        peers: Sequence[FeatureExtractor],
        lessons: Sequence[Lesson],
        compiled: bool = False,
    ) -> None:
        super().__init__(peers[0], lessons[0].objective, compiled)
        self.learners = tuple(learners)
        self.others = nn.ModuleList(peers[1:])
        self.more_objectives = nn.ModuleList(lesson.objective for lesson in lessons[1:])
        self.lessons = tuple(lessons)
        others = [compile_network(peer) if compiled else peer for peer in peers[1:]]
        self._run_others: tuple[Callable[[Tensor], Outputs], ...] = tuple(others)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Weights and terms of every pair may follow the epoch."""
        for lesson in self.lessons:
            lesson.objective.start_epoch(epoch, epochs)

    def after_step(self) -> None:
        """The optimiser has used the gradients of the last forward."""
        for lesson in self.lessons:
            for term in lesson.objective.loss_list():
                term.after_step()

    def forward(self, batch: Batch) -> StepOutput:
        """The sum of all peers' losses for a batch."""
        outputs = self._forward_all(batch.images)
        constants = [output.detached() for output in outputs]
        parts: list[tuple[str, dict[str, Tensor], dict[str, Tensor]]] = []
        for lesson in self.lessons:
            teacher = _teacher(constants, lesson)
            _, found = lesson.objective(outputs[lesson.learner], [teacher], batch)
            shares = {name: lesson.share * value for name, value in found.items()}
            parts.append((f"peer{lesson.learner + 1}_", shares, lesson.objective.weigh(shares)))
        return step_output(outputs[0].logits, parts)

    def _forward_all(self, images: Tensor) -> list[Outputs]:
        """Each peer's outputs, of every view that the objective reads."""
        runs = (*self._run_student, *self._run_others)
        outputs = [run(images) for run in runs]
        if self.objective.reads_strong_view:
            strong = strong_view(images)
            for output, run in zip(outputs, runs, strict=True):
                output.strong = run(strong)
        return outputs

    def describe(self) -> str:
        """The objective of one peer."""
        return f"for each of {len(self.learners)} peers: {self.objective.describe()}"

    def facts(self) -> dict[str, Any]:
        """The seed of each peer's initial weights."""
        return {"peer_seeds": [learner.seed for learner in self.learners]}

    def companions(self) -> list[AuxiliaryModel]:
        """The other peers, and the mean of all peers' answers."""
        found = [
            AuxiliaryModel("peers", f"peer {number}", peer, learner)
            for number, (peer, learner) in enumerate(
                zip(self.others, self.learners[1:], strict=True), start=2
            )
        ]
        count = len(self.learners)
        everyone = MeanAnswer([self.student, *self.others])
        return [*found, AuxiliaryModel("ensemble", f"ensemble of {count} peers", everyone)]


def _lessons(given: SchemeContext, count: int, variant: str) -> list[Lesson]:
    numbers = range(count)
    if variant == "mean":
        groups = [(i, tuple(j for j in numbers if j != i)) for i in numbers]
    else:
        groups = [(i, (j,)) for i in numbers for j in numbers if j != i]
    share = 1.0 if variant == "mean" else 1.0 / (count - 1)
    objectives = [given.objective, *(given.new_objective() for _ in groups[1:])]
    return [
        Lesson(learner, teachers, objective, share)
        for (learner, teachers), objective in zip(groups, objectives, strict=True)
    ]


def _tap(
    given: SchemeContext, learners: Sequence[TrainableNetwork], lessons: Sequence[Lesson]
) -> list[FeatureExtractor]:
    """Every peer with the taps that its lessons read; the adapters of each pair are built."""
    names: list[list[str]] = [[] for _ in learners]
    for lesson in lessons:
        student, teacher = lesson.learner, lesson.teachers[0]
        for term in lesson.objective.loss_list():
            term.pairs = pair_taps(term.taps, learners[student].paths, learners[teacher].paths)
            names[student] += [pair[0] for pair in term.pairs]
            names[teacher] += [pair[1] for pair in term.pairs]
    embedding = any(term.reads_embedding for term in given.objective.loss_list())
    extractor = [
        learner.extractor(list(dict.fromkeys(own)), embedding)
        for learner, own in zip(learners, names, strict=True)
    ]
    outputs = [given.dry(peer) for peer in extractor]
    for lesson in lessons:
        student, teacher = lesson.learner, lesson.teachers[0]
        given.build_losses(
            lesson.objective,
            (learners[student], learners[teacher]),
            (outputs[student], outputs[teacher]),
            f"{student}-{teacher}",
        )
    return extractor


def _require_one_temperature(objective: Objective) -> None:
    temperatures = {term.target_temperature() for term in objective.loss_list()}
    if len(temperatures) != 1 or None in temperatures:
        raise ConfigError(
            "scheme.variant=mean averages the peers' probabilities at the objective's one "
            "temperature: use losses on logits with the same T, or scheme.variant=each."
        )


def _teacher(constants: Sequence[Outputs], lesson: Lesson) -> Outputs:
    """The one that teaches: a peer, or the mean of several."""
    if len(lesson.teachers) == 1:
        return constants[lesson.teachers[0]]
    temperature = lesson.objective.loss_list()[0].target_temperature()
    assert temperature is not None
    return Outputs(mean_logits([constants[j].logits for j in lesson.teachers], temperature))
