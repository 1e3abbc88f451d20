"""Context of a loss beyond tensors: the networks, the training set, a pre-training phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.types import InputInfo, Outputs

# A requested tap: a name for both networks, or [student's, teacher's].
TapRequest = str | Sequence[str]


@dataclass(frozen=True)
class NetworkView:
    """A network, for losses that need one of its modules (classifier, BatchNorm).

    paths: tap name → module path, optionally with `:in`.
    outputs: positions of the classes in the network's outputs, in class order; None: all.
    info: the images it takes; None: those of the data set.
    """

    network: nn.Module
    paths: Mapping[str, str]
    outputs: Sequence[int] | None = None
    info: InputInfo | None = None

    def answers(self, outputs: Outputs) -> Outputs:
        """The network's outputs with only the logits of the data set's classes."""
        if self.outputs is None:
            return outputs
        index = torch.tensor(list(self.outputs), device=outputs.logits.device)
        return replace(outputs, logits=outputs.logits.index_select(1, index))

    def module(self, tap: str) -> nn.Module:
        """The module at a tap; for `embedding` the classifier."""
        return self.network.get_submodule(self.paths.get(tap, tap).removesuffix(":in"))


@dataclass(frozen=True)
class NoNetwork(NetworkView):
    """Placeholder for a loss used as a criterion: there are tensors, but no network."""

    def module(self, tap: str) -> nn.Module:
        """Raise ConfigError: there is no network to take the module from."""
        raise ConfigError(
            f"This loss needs the module at '{tap}', which cannot be derived from tensors: use the "
            "loss in a kdrun.Distiller, which has the networks."
        )


class TeacherEmbeddings(Protocol):
    """Statistics of a teacher's embeddings over the training images, without augmentation.

    They are measured by a forward pass over all images when they are first asked for.
    """

    def class_means(self) -> Tensor:
        """The mean embedding of each class, `[C, D]`."""

    def class_similarity(self) -> Tensor:
        """Linear CKA between the embeddings of each two classes, `[C, C]`."""


@dataclass(frozen=True)
class LossContext:
    """Information a loss can use to build its adapters, besides the dry batch's outputs.

    transfer_size: images in the transfer set. targets: their labels `[transfer_size]`.
    batch_size: training batch size. seed: for the random numbers of the loss.
    position: number of this instance's teacher, from 0. teachers: how many there are; each has its
    own instance of the loss.
    embeddings: of the teacher; None where the training images are unknown, as for a criterion, and
    where no loss reads the embedding.
    """

    num_classes: int
    transfer_size: int
    targets: Tensor
    batch_size: int
    seed: int
    student: NetworkView
    teacher: NetworkView
    position: int = 0
    teachers: int = 1
    embeddings: TeacherEmbeddings | None = None


@dataclass(frozen=True)
class Pretraining:
    """A phase before the main one that minimises only the `pretrain_loss` of one loss.

    optimizer: sgd | adam | adamw; its other settings are the student's.
    lr: None uses the student's.
    """

    epochs: int
    lr: float | None = None
    optimizer: str = "sgd"
