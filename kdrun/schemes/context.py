"""What a scheme may be given when it is built, and how it makes networks and losses meet.

Schemes with a frozen teacher are given networks with their taps set. Schemes whose networks teach
each other, or themselves, set taps of their own: they start from here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.losses.base import LossContext, NetworkView
from kdrun.losses.objective import Objective
from kdrun.models.dry_run import dry_run
from kdrun.models.features.taps import FeatureExtractor, TapPaths
from kdrun.seeds import derive
from kdrun.types import Normalisation, Outputs


@dataclass(frozen=True)
class TrainableNetwork:
    """A network that is trained.

    seed: of its initial weights.
    normalisation: (constants of the loader's images, constants the network expects).
    """

    network: nn.Module
    config: NetworkConfig
    paths: TapPaths
    normalisation: tuple[Normalisation, Normalisation]
    seed: int

    def extractor(self, names: Sequence[str] = (), embedding: bool = False) -> FeatureExtractor:
        """The network as it takes the loader's images, with these taps."""
        return FeatureExtractor(self.network, names, self.paths, embedding, self.normalisation)


@dataclass(frozen=True)
class SchemeContext:
    """Everything a scheme may know besides its own settings.

    peers: what `scheme.peers` names. another: a new network like the student with initial weights
    of its own, by number. new_objective: the objective once more, with terms of its own.
    sample: two of the data's images in shape, black. targets: `[N]` labels of the training images.
    """

    student: TrainableNetwork
    peers: tuple[TrainableNetwork, ...]
    another: Callable[[int], TrainableNetwork]
    objective: Objective
    new_objective: Callable[[], Objective]
    sample: Tensor
    num_classes: int
    targets: Tensor
    batch_size: int
    seed: int
    compiled: bool

    def dry(self, extractor: FeatureExtractor) -> Outputs:
        """What a network says of `sample`, without a trace."""
        with dry_run(extractor):
            outputs: Outputs = extractor(self.sample)
        return outputs

    def build_losses(
        self,
        objective: Objective,
        pair: tuple[TrainableNetwork, TrainableNetwork],
        outputs: tuple[Outputs, Outputs],
        stream: str,
    ) -> None:
        """Build the adapters of the losses for one (student, teacher) pair that both learn.

        stream: names the random numbers of these adapters.
        Raises ConfigError for losses that need a frozen teacher.
        """
        student, teacher = pair
        torch.manual_seed(derive(self.seed, "adapters", stream))
        for term in objective.loss_list():
            context = LossContext(
                num_classes=self.num_classes,
                transfer_size=len(self.targets),
                targets=self.targets,
                batch_size=self.batch_size,
                seed=derive(self.seed, "terms", stream),
                student=NetworkView(student.network, student.paths),
                teacher=_LearningTeacher(teacher.network, teacher.paths, term=term.id),
            )
            term.build(*outputs, context)

    build_terms = build_losses  # former name; scheme files written for earlier versions call it


@dataclass(frozen=True)
class _LearningTeacher(NetworkView):
    """A teacher that is being trained itself: no term may hold on to its modules."""

    term: str = ""

    def module(self, tap: str) -> nn.Module:
        raise ConfigError(
            f"loss={self.term} takes over a layer of a finished teacher, and here the teacher is "
            "still learning: use another loss, or scheme=offline."
        )


def pooled(features: Tensor) -> Tensor:
    """A tensor of a network as `[B, D]`: the mean over space or tokens, where it has them."""
    if features.dim() == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.dim() == 3 else features.flatten(1)


def require_losses(objective: Objective, scheme: str) -> None:
    """Raise ConfigError for an objective of labels alone. scheme: its name, for the message."""
    if not objective.loss_list():
        raise ConfigError(
            f"scheme={scheme} with loss=ce teaches nothing: choose a loss, e.g. loss=kd, or "
            "scheme=offline for the labels alone."
        )


def require_one_phase(objective: Objective, scheme: str) -> None:
    """Raise ConfigError for labels alone, and for terms that need a finished teacher."""
    require_losses(objective, scheme)
    for term in objective.loss_list():
        if term.replaces_student or term.pretraining() is not None:
            raise ConfigError(
                f"loss={term.id} needs a teacher that has finished learning, which scheme={scheme} "
                "has not: use another loss, or scheme=offline."
            )


def require_logits(objective: Objective, scheme: str, reason: str) -> None:
    """Raise ConfigError unless every term reads logits alone.

    reason: why the scheme has nothing else, as a clause.
    """
    require_one_phase(objective, scheme)
    for term in objective.loss_list():
        if term.taps or term.reads_embedding or term.reads_strong_view:
            raise ConfigError(
                f"loss={term.id} reads more than logits, but with scheme={scheme} {reason}: use a "
                "loss on logits, e.g. loss=kd or loss=dkd."
            )


def require_variant(scheme: str, variant: str, known: Sequence[str]) -> None:
    """Raise ConfigError unless `variant` is one of those that the scheme has."""
    if variant not in known:
        raise ConfigError(f"scheme.variant={variant}: {scheme} has {', '.join(known)}.")


# Former name; scheme files written for earlier versions import it.
Given = SchemeContext
