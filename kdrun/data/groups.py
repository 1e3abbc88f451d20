"""Grouped images, such as the frames of one recording: kept in one split, classified together."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdrun.data.images import Split
from kdrun.errors import DataError


def sampling_units(split: Split) -> tuple[Tensor, Tensor]:
    """Units that are drawn as a whole: (label of each unit `[U]`, unit of each image `[N]`).

    A unit is a group, or a single image in a split without groups.
    """
    if split.groups is None:
        return split.targets, torch.arange(len(split))
    names, unit = split.groups.unique(return_inverse=True)
    labels = torch.zeros_like(names)
    labels[unit] = split.targets
    return labels, unit


def check_groups(split: Split, where: str) -> None:
    """Raise DataError unless groups cover every image and each has a single label."""
    if split.groups is None:
        return
    if split.groups.shape != split.targets.shape:
        raise DataError(f"{where}: groups must be one whole number per image, [{len(split)}].")
    pairs = torch.stack([split.groups, split.targets])
    if pairs.unique(dim=1).shape[1] != len(split.groups.unique()):
        raise DataError(f"{where}: all images of a group must have the same label.")


@dataclass(frozen=True)
class GroupError:
    """A `SplitMetric`: the error rate of groups, classified by their summed log posteriors.

    unit: name of a group in the singular, e.g. "word". index: `[N]` int64, the group of each image;
    all images of a group have the same label.
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
