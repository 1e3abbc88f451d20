"""What a loss may know besides tensors: the networks, the training set, its own first phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.types import InputInfo, Outputs

# A requested tap: a name for both networks, or [student's, teacher's].
TapRequest = str | Sequence[str]


@dataclass(frozen=True)
class NetworkView:
    """A network for the few methods that need one of its modules (its classifier, a BatchNorm).

    paths: tap name → module path, optionally with `:in`.
    outputs: positions of the classes in the network's outputs, in class order; None: all.
    info: the images it takes; None: those of the data set.
    """

    network: nn.Module
    paths: Mapping[str, str]
    outputs: Sequence[int] | None = None
    info: InputInfo | None = None

    def answers(self, outputs: Outputs) -> Outputs:
        """The bare network's outputs with the logits of the classes alone."""
        if self.outputs is None:
            return outputs
        index = torch.tensor(list(self.outputs), device=outputs.logits.device)
        return replace(outputs, logits=outputs.logits.index_select(1, index))

    def module(self, tap: str) -> nn.Module:
        """The module at a tap; for `embedding` the classifier."""
        return self.network.get_submodule(self.paths.get(tap, tap).removesuffix(":in"))


@dataclass(frozen=True)
class NoNetwork(NetworkView):
    """The view of a loss that is used as a criterion: there are tensors, but no network."""

    def module(self, tap: str) -> nn.Module:
        """Raise ConfigError: the module must come from the caller."""
        raise ConfigError(
            f"This loss reads the module at '{tap}', which tensors do not tell: use the loss in a "
            "kdrun.Distiller, which knows the networks."
        )


@dataclass(frozen=True)
class LossContext:
    """What a loss may use besides shapes when it builds its adapters.

    transfer_size: images in the transfer set; their labels `[transfer_size]` are `targets`.
    batch_size: of the training. seed: for the random numbers of the loss.
    position, teachers: number of the teacher (from 0) that this instance learns from, of how many;
    each teacher has an instance of the loss.
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


@dataclass(frozen=True)
class Pretraining:
    """A phase before the main one in which only the `pretrain_loss` of one loss is minimised.

    optimizer: sgd | adam | adamw; the other settings are the student's.
    lr: None takes the student's.
    """

    epochs: int
    lr: float | None = None
    optimizer: str = "sgd"
