"""Deep mutual learning: networks that are trained together and teach each other.

Source: Zhang, Xiang, Hospedales and Lu 2018, arXiv 1706.00384.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from kdrun.data.loaders.strong_view import strong_view_of
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
    "each": "every other peer is a teacher; the losses are averaged over them",
    "mean": "one teacher: the mean of the other peers' probabilities (the paper's DML_e)",
}


@dataclass(frozen=True)
class PeerLoss:
    """The objective of one peer with some other peers as one teacher.

    learner, teachers: numbers of peers, from 0. share: weight in the learner's loss.
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
    so that no peer is ahead of another and a step costs one forward pass each.

    scheme.peers: the networks trained with the student, which is peer 1.
    Losses on features have separate adapters for every pair of peers.
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
    peer_losses = _peer_losses(given, len(learners), variant)
    if variant == "mean":
        _require_one_temperature(given.objective)
    return Online(learners, _tap(given, learners, peer_losses), peer_losses, given.compiled)


class Online(StudentScheme):
    """Peers that teach each other; peer 1 is the student that is saved."""

    trains_peers: ClassVar[bool] = True

    def __init__(
        self,
        learners: Sequence[TrainableNetwork],
        peers: Sequence[FeatureExtractor],
        peer_losses: Sequence[PeerLoss],
        compiled: bool = False,
    ) -> None:
        super().__init__(peers[0], peer_losses[0].objective, compiled)
        self.learners = tuple(learners)
        self.others = nn.ModuleList(peers[1:])
        self.more_objectives = nn.ModuleList(peer_loss.objective for peer_loss in peer_losses[1:])
        self.peer_losses = tuple(peer_losses)
        others = [compile_network(peer) if compiled else peer for peer in peers[1:]]
        self._run_others: tuple[Callable[[Tensor], Outputs], ...] = tuple(others)

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Update loss weights of every pair that depend on the epoch."""
        for peer_loss in self.peer_losses:
            peer_loss.objective.start_epoch(epoch, epochs)

    def after_step(self) -> None:
        """Called after each batch, and after the optimiser step that it completes."""
        for peer_loss in self.peer_losses:
            for loss in peer_loss.objective.loss_list():
                loss.after_step()

    def forward(self, batch: Batch) -> StepOutput:
        """The sum of all peers' losses for a batch."""
        outputs = self._forward_all(batch)
        constants = [output.detached() for output in outputs]
        parts: list[tuple[str, dict[str, Tensor], dict[str, Tensor]]] = []
        for peer_loss in self.peer_losses:
            teacher = _teacher(constants, peer_loss)
            _, values = peer_loss.objective(outputs[peer_loss.learner], [teacher], batch)
            shares = {name: peer_loss.share * value for name, value in values.items()}
            parts.append(
                (f"peer{peer_loss.learner + 1}_", shares, peer_loss.objective.weigh(shares))
            )
        return step_output(outputs[0].logits, parts)

    def _forward_all(self, batch: Batch) -> list[Outputs]:
        """Outputs of each peer, for every view that the objective reads."""
        runs = (*self._run_student, *self._run_others)
        outputs = [run(batch.images) for run in runs]
        if self.objective.reads_strong_view:
            strong = strong_view_of(batch)
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
        """The other peers, and the ensemble of all peers."""
        peers = [
            AuxiliaryModel("peers", f"peer {number}", peer, learner)
            for number, (peer, learner) in enumerate(
                zip(self.others, self.learners[1:], strict=True), start=2
            )
        ]
        count = len(self.learners)
        everyone = MeanAnswer([self.student, *self.others])
        return [*peers, AuxiliaryModel("ensemble", f"ensemble of {count} peers", everyone)]


def _peer_losses(given: SchemeContext, count: int, variant: str) -> list[PeerLoss]:
    numbers = range(count)
    if variant == "mean":
        groups = [(i, tuple(j for j in numbers if j != i)) for i in numbers]
    else:
        groups = [(i, (j,)) for i in numbers for j in numbers if j != i]
    share = 1.0 if variant == "mean" else 1.0 / (count - 1)
    objectives = [given.objective, *(given.new_objective() for _ in groups[1:])]
    return [
        PeerLoss(learner, teachers, objective, share)
        for (learner, teachers), objective in zip(groups, objectives, strict=True)
    ]


def _tap(
    given: SchemeContext, learners: Sequence[TrainableNetwork], peer_losses: Sequence[PeerLoss]
) -> list[FeatureExtractor]:
    """Set the taps of every peer and build the adapters of every pair."""
    names: list[list[str]] = [[] for _ in learners]
    for peer_loss in peer_losses:
        student, teacher = peer_loss.learner, peer_loss.teachers[0]
        for loss in peer_loss.objective.loss_list():
            loss.pairs = pair_taps(loss.taps, learners[student].paths, learners[teacher].paths)
            names[student] += [pair[0] for pair in loss.pairs]
            names[teacher] += [pair[1] for pair in loss.pairs]
    embedding = any(loss.reads_embedding for loss in given.objective.loss_list())
    extractor = [
        learner.extractor(list(dict.fromkeys(taps)), embedding)
        for learner, taps in zip(learners, names, strict=True)
    ]
    outputs = [given.dry(peer) for peer in extractor]
    for peer_loss in peer_losses:
        student, teacher = peer_loss.learner, peer_loss.teachers[0]
        given.build_losses(
            peer_loss.objective,
            (learners[student], learners[teacher]),
            (outputs[student], outputs[teacher]),
            f"{student}-{teacher}",
        )
    return extractor


def _require_one_temperature(objective: Objective) -> None:
    temperatures = {loss.target_temperature() for loss in objective.loss_list()}
    if len(temperatures) != 1 or None in temperatures:
        raise ConfigError(
            "scheme.variant=mean averages the peers' probabilities at the objective's one "
            "temperature: use losses on logits with the same T, or scheme.variant=each."
        )


def _teacher(constants: Sequence[Outputs], peer_loss: PeerLoss) -> Outputs:
    """The teacher's outputs: of one peer, or the mean of several."""
    if len(peer_loss.teachers) == 1:
        return constants[peer_loss.teachers[0]]
    temperature = peer_loss.objective.loss_list()[0].target_temperature()
    assert temperature is not None
    return Outputs(mean_logits([constants[j].logits for j in peer_loss.teachers], temperature))
