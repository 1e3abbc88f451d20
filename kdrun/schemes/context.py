"""The context from which schemes are built: networks, the objective and its adapters.

Schemes with frozen teachers receive networks whose taps are already set. Mutual and
self-distillation schemes set their taps through `SchemeContext`.
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
    """A network to train.

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
    """Networks, objective and data of a run, from which a scheme is built.

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
        """Build the adapters of the losses for one (student, teacher) pair that trains together.

        stream: name of the adapters' random number stream.
        Raises ConfigError for losses that need a frozen teacher.
        """
        student, teacher = pair
        torch.manual_seed(derive(self.seed, "adapters", stream))
        for loss in objective.loss_list():
            if loss.student_taps:
                raise ConfigError(
                    f"loss={loss.id} adds exits to a student of frozen teachers: use "
                    "scheme=offline, or scheme=byot for exits without a teacher."
                )
            context = LossContext(
                num_classes=self.num_classes,
                transfer_size=len(self.targets),
                targets=self.targets,
                batch_size=self.batch_size,
                seed=derive(self.seed, "terms", stream),
                student=NetworkView(student.network, student.paths),
                teacher=_TeacherInTraining(teacher.network, teacher.paths, loss=loss.id),
            )
            loss.build(*outputs, context)

    build_terms = build_losses  # former name; scheme files written for earlier versions call it


@dataclass(frozen=True)
class _TeacherInTraining(NetworkView):
    """A teacher that is still in training: losses must not reuse its modules."""

    loss: str = ""

    def module(self, tap: str) -> nn.Module:
        raise ConfigError(
            f"loss={self.loss} reuses a layer of a trained teacher, but this teacher is still in "
            "training: use another loss, or scheme=offline."
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
            f"scheme={scheme} with loss=ce has no distillation loss: set one, e.g. loss=kd, or "
            "scheme=offline for labels only."
        )


def require_one_phase(objective: Objective, scheme: str) -> None:
    """Raise ConfigError without a distillation loss, and for losses that need a trained teacher."""
    require_losses(objective, scheme)
    for loss in objective.loss_list():
        if loss.replaces_student or loss.pretraining() is not None:
            raise ConfigError(
                f"loss={loss.id} needs a trained teacher, which scheme={scheme} does not have: use "
                "another loss, or scheme=offline."
            )


def require_logits(objective: Objective, scheme: str, reason: str) -> None:
    """Raise ConfigError for losses that read more than logits.

    reason: why the scheme has only logits, as a clause.
    """
    require_one_phase(objective, scheme)
    for loss in objective.loss_list():
        if loss.taps or loss.reads_embedding or loss.reads_strong_view:
            raise ConfigError(
                f"loss={loss.id} reads more than logits, but with scheme={scheme} {reason}: use a "
                "loss on logits, e.g. loss=kd or loss=dkd."
            )


def require_variant(scheme: str, variant: str, known: Sequence[str]) -> None:
    """Raise ConfigError unless `variant` is one of `known`."""
    if variant not in known:
        raise ConfigError(
            f"scheme.variant={variant} does not exist: scheme={scheme} has {', '.join(known)}."
        )


# Former name; scheme files written for earlier versions import it.
Given = SchemeContext
