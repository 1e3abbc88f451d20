"""One teacher forward pass for all jobs of a lockstep group that see the same batch."""

from dataclasses import replace

from torch import Tensor, nn

from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.base import teacher_forward
from kdrun.types import BatchKeys, Outputs


class SharedForward(nn.Module):
    """A teacher that keeps its outputs for the last images until it is called with others.

    teacher: images → `Outputs`; it gets the batch's keys where it reads them.
    """

    reads_keys = True

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.members: list[FeatureExtractor] = []
        self.images: Tensor | None = None
        self.keys: BatchKeys | None = None
        self.outputs: list[Outputs] = []

    def member(self, extractor: FeatureExtractor) -> "TapsOfOneJob":
        """Read the taps of one more job in the same pass."""
        self.members.append(extractor)
        self.images = self.keys = None
        return TapsOfOneJob(self, extractor)

    def forward(self, images: Tensor, keys: BatchKeys | None = None) -> Outputs:
        return self.outputs_of(images, keys, 0)

    def outputs_of(self, images: Tensor, keys: BatchKeys | None, number: int) -> Outputs:
        """The outputs for member `number`, with a features dict that the member may change."""
        if not self._is_last(images, keys):
            if self.members:
                first, *others = self.members
                self.outputs = first.forward_shared(others, images)
            else:
                self.outputs = [teacher_forward(self.teacher, images, keys)]
            self.images, self.keys = images, keys
        outputs = self.outputs[number]
        return replace(outputs, features=dict(outputs.features))

    def _is_last(self, images: Tensor, keys: BatchKeys | None) -> bool:
        """Whether `images` is the tensor of the last call, or a copy of its batch."""
        if images is self.images:
            return True
        return keys is not None and keys is self.keys and keys.match(images)


class TapsOfOneJob(nn.Module):
    """One job's taps of a `SharedForward`."""

    reads_keys = True

    def __init__(self, shared: SharedForward, extractor: FeatureExtractor) -> None:
        super().__init__()
        self.shared = shared
        self.number = len(shared.members) - 1
        self.extractor = extractor

    def forward(self, images: Tensor, keys: BatchKeys | None = None) -> Outputs:
        return self.shared.outputs_of(images, keys, self.number)
