"""Error rate of groups of images, each classified as a whole: the frames of a spoken word."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class GroupError:
    """A `SplitMetric`: the class of a group is the one with the largest sum of log posteriors.

    unit: a group in the singular, e.g. "word". index: `[N]` int64, the group of each image; all
    images of a group have the same label.
    """

    unit: str
    index: Tensor

    @property
    def name(self) -> str:
        """The plural, e.g. "words"."""
        return f"{self.unit}s"

    def measure(self, logits: Tensor, targets: Tensor) -> dict[str, float | int]:
        """`{"words": groups, "errors": wrong groups, "word_error_percent": share}`."""
        numbers, group = self.index.unique(return_inverse=True)
        posteriors = logits.double().log_softmax(dim=1)
        scores = posteriors.new_zeros(len(numbers), logits.shape[1])
        scores = scores.index_add(0, group, posteriors)
        labels = targets.new_zeros(len(numbers)).index_copy(0, group, targets)
        errors = int((scores.argmax(dim=1) != labels).sum().item())
        return {
            self.name: len(numbers),
            "errors": errors,
            f"{self.unit}_error_percent": 100.0 * errors / len(numbers),
        }

    def select(self, positions: Tensor) -> "GroupError":
        """The groups of the images at `positions` `[B]`."""
        return GroupError(self.unit, self.index[positions])
