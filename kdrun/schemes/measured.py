"""Models that are measured in addition to the student: peers, branches, exits, ensembles."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from kdrun.losses.ensemble import mean_soft_targets
from kdrun.models.dry_run import logits_of
from kdrun.schemes.context import TrainableNetwork


@dataclass(frozen=True)
class AuxiliaryModel:
    """A network, or a part of one, that is measured in addition to the student.

    kind: its list in `result.json` (peers, branches, exits, ensemble). name: what it is called.
    module: the loader's images → logits `[B, C]`, or `Outputs`.
    learner: the network to save, if the model is a complete network.
    """

    kind: str
    name: str
    module: nn.Module
    learner: TrainableNetwork | None = None


class MeanAnswer(nn.Module):
    """The mean of several networks' probabilities, as logits: log (1/n · Σ softmax(z_i))."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """images `[B, ...]` → log-probabilities `[B, C]`."""
        return mean_logits([logits_of(member(images)) for member in self.members], 1.0)


def mean_logits(logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Logits whose softmax at T is the mean of the softmax of the given `[B, C]` at T."""
    return mean_soft_targets(logits, [1.0 / len(logits)] * len(logits), temperature)
