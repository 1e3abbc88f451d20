"""One teacher forward pass for all jobs of a lockstep group that see the same batch."""

from dataclasses import replace

from torch import Tensor, nn

from kdrun.models.taps import Tapped
from kdrun.types import Outputs


class SharedForward(nn.Module):
    """A teacher that keeps its outputs for the last images until it is called with others.

    teacher: images → `Outputs`.
    """

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.members: list[Tapped] = []
        self.images: Tensor | None = None
        self.outputs: list[Outputs] = []

    def member(self, tapped: Tapped) -> "TapsOfOneJob":
        """Read the taps of one more job in the same pass."""
        self.members.append(tapped)
        self.images = None
        return TapsOfOneJob(self, tapped)

    def forward(self, images: Tensor) -> Outputs:
        return self.outputs_of(images, 0)

    def outputs_of(self, images: Tensor, number: int) -> Outputs:
        """The outputs for member `number`, with a features dict that the member may change."""
        if self.images is not images:
            if self.members:
                first, *others = self.members
                self.outputs = first.beside(others, images)
            else:
                self.outputs = [self.teacher(images)]
            self.images = images
        outputs = self.outputs[number]
        return replace(outputs, features=dict(outputs.features))


class TapsOfOneJob(nn.Module):
    """One job's taps of a `SharedForward`."""

    def __init__(self, shared: SharedForward, tapped: Tapped) -> None:
        super().__init__()
        self.shared = shared
        self.number = len(shared.members) - 1
        self.tapped = tapped

    def forward(self, images: Tensor) -> Outputs:
        return self.shared.outputs_of(images, self.number)
