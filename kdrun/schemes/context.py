"""What a scheme is built from: networks, the objective, and their adapters.

Schemes with frozen teachers receive networks whose taps are set. Schemes whose networks teach each
other, or themselves, set their taps through `SchemeContext`.
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
        """The network with these taps, for the loader's images."""
        return FeatureExtractor(self.network, names, self.paths, embedding, self.normalisation)


@dataclass(frozen=True)
class SchemeContext:
    """Everything a scheme can use besides its settings.

    peers: from `scheme.peers`. another: number → a new network with the student's architecture and
    its own seed. new_objective: a new instance of the objective with its own losses.
    sample: two black images of the data's shape. targets: `[N]` labels of the training images.
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
        """Outputs for `sample`, without side effects on the network."""
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
    """A teacher that is still being trained: losses must not reuse its modules."""

    term: str = ""

    def module(self, tap: str) -> nn.Module:
        raise ConfigError(
            f"loss={self.term} takes over a layer of a finished teacher, and here the teacher is "
            "still learning: use another loss, or scheme=offline."
        )


def pooled(features: Tensor) -> Tensor:
    """Features as `[B, D]`: the mean over space or tokens, if there are any."""
    if features.dim() == 4:
        return features.mean(dim=(2, 3))
    return features.mean(dim=1) if features.dim() == 3 else features.flatten(1)


def require_losses(objective: Objective, scheme: str) -> None:
    """Raise ConfigError for an objective without a distillation loss."""
    if not objective.loss_list():
        raise ConfigError(
            f"scheme={scheme} with loss=ce distils nothing: choose a loss, e.g. loss=kd, or "
            "scheme=offline for labels only."
        )


def require_one_phase(objective: Objective, scheme: str) -> None:
    """Raise ConfigError for labels only, and for losses that need a finished teacher."""
    require_losses(objective, scheme)
    for term in objective.loss_list():
        if term.replaces_student or term.pretraining() is not None:
            raise ConfigError(
                f"loss={term.id} needs a teacher that has finished learning, which scheme={scheme} "
                "has not: use another loss, or scheme=offline."
            )


def require_logits(objective: Objective, scheme: str, reason: str) -> None:
    """Raise ConfigError for losses that read more than logits.

    reason: why the scheme has only logits, as a clause.
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
