"""A phase before the main one that minimises the pre-training loss of one loss."""

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from kdrun.losses.base import Pretraining
from kdrun.schemes.base import StudentScheme
from kdrun.types import Batch, StepOutput


class PretrainScheme(nn.Module):
    """The main scheme with the pre-training loss of `loss_name`: same networks and state.

    Parameters that this loss does not depend on get no gradient and are not updated.
    """

    def __init__(self, main: StudentScheme, loss_name: str) -> None:
        super().__init__()
        self.main = main
        self.loss_name = loss_name

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Those of the main scheme, once."""
        return self.main.parameters(recurse)

    def state_dict(self) -> dict[str, Tensor]:  # type: ignore[override]
        """That of the main scheme, so that the main phase finds all."""
        return self.main.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> object:  # type: ignore[override]
        """Load the main scheme."""
        return self.main.load_state_dict(state)

    @property
    def network(self) -> nn.Module:
        """The plain student."""
        return self.main.network

    @property
    def measured(self) -> nn.Module:
        """The student, for the loader's images."""
        return self.main.measured

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Nothing depends on the epoch here."""

    def start_step(self, done: float) -> None:
        """Ranges of a quantised student are observed throughout."""

    def after_step(self) -> None:
        """Nothing is updated here."""

    def forward(self, batch: Batch) -> StepOutput:
        """The pre-training loss, averaged over the teachers."""
        student, teachers = self.main.forward_networks(batch)
        loss = self.main.objective.pretrain_loss(self.loss_name, student, teachers, batch)
        return StepOutput(loss, student.logits, {f"{self.loss_name}_pretrain": loss.detach()})


def pretrain_phases(scheme: StudentScheme) -> Iterable[tuple[str, str, Pretraining]]:
    """(phase, name of the loss, plan) of every loss that is pre-trained."""
    for name, weighted in scheme.objective.weighted.items():
        plan = weighted.loss.pretraining()
        if plan is not None and plan.epochs > 0 and weighted.weight > 0:
            yield f"pretrain-{name}", name, plan
