"""What a batch is, and what a network says about it: the tensors every layer passes on.

Shape letters used throughout: B batch, C classes, D embedding width, H height, W width.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchKeys:
    """Which image and view each row of a batch is: the key of cached network outputs.

    loader: its batches are pure functions of (epoch, number).
    images: `[B, ...]`, the batch as the loader made it.
    """

    loader: Any
    epoch: int
    number: int
    images: Tensor

    def match(self, images: Tensor) -> bool:
        """Whether `images` is that tensor or a copy with the same values, in any memory layout."""
        if images is self.images:
            return True
        same_kind = images.shape == self.images.shape and images.dtype == self.images.dtype
        return same_kind and torch.equal(images.to(self.images.device), self.images)


@dataclass
class Batch:
    """One step's images and labels, on the device that computes.

    images: `[B, ...]` float, normalised for the student.
    targets: `[B]` int64 class numbers.
    index: `[B]` int64 position of each image in the transfer set.
    partner: `[B, ...]` another image of each one's class, for schemes that compare such pairs.
    keys: identify the images to caches; None for images that no loader made, such as mixtures.
    """

    images: Tensor
    targets: Tensor
    index: Tensor
    partner: Tensor | None = None
    keys: BatchKeys | None = None

    def __len__(self) -> int:
        return self.targets.shape[0]


@dataclass
class Outputs:
    """What one network computed for a batch.

    logits: `[B, C]`.
    features: tap name → tensor, e.g. `stage3` → `[B, channels, H, W]`.
    embedding: `[B, D]`, the input of the classifier; None when nobody asked for it.
    strong: the same of a strongly augmented view of the batch, for losses that read one.
    distillation: `[B, C]` of each distillation token's head, for networks that have such tokens;
        `logits` are then those of the class head in training, and of the heads that the network
        answers with in evaluation mode.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    embedding: Tensor | None = None
    strong: "Outputs | None" = None
    distillation: tuple[Tensor, ...] = ()

    def detached(self) -> "Outputs":
        """The same tensors cut from the graph."""
        return Outputs(
            self.logits.detach(),
            {name: tensor.detach() for name, tensor in self.features.items()},
            None if self.embedding is None else self.embedding.detach(),
            None if self.strong is None else self.strong.detached(),
            tuple(logits.detach() for logits in self.distillation),
        )


@dataclass(frozen=True)
class InputInfo:
    """What a network must know of the data to be built.

    image_size: (height, width) in pixels.
    """

    num_classes: int
    in_channels: int
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Normalisation:
    """Per-channel constants: a network sees `(pixel / 255 - mean) / std`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class SplitMetric(Protocol):
    """A data set's own metrics of one split, measured wherever top-1 is measured.

    `result.json` has them as `<split>_<name>`. Tables show the values whose key ends in `_percent`;
    lower is better.
    """

    @property
    def name(self) -> str:
        """What is measured, e.g. "words"."""

    def measure(self, logits: Tensor, targets: Tensor) -> dict[str, float | int]:
        """Metrics from the logits `[N, C]` and labels `[N]` of the whole split."""

    def select(self, positions: Tensor) -> "SplitMetric":
        """The same metrics of the images at `positions` `[B]`."""


@dataclass
class StepOutput:
    """What a scheme returns for one batch.

    loss: scalar, what is minimised.
    logits: `[B, C]` of the network being trained, for the training accuracy.
    parts: name → detached scalar tensor, what is logged beside the loss.
    groups: name → scalar in the graph; they add up to the loss, and an optimiser may treat them
        differently (`task`: the labels, `distill`: the teacher).
    """

    loss: Tensor
    logits: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Tensor] = field(default_factory=dict)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, copied asynchronously where the memory is pinned."""
    images = batch.images.to(device, non_blocking=True)
    return Batch(
        images,
        batch.targets.to(device, non_blocking=True),
        batch.index.to(device, non_blocking=True),
        None if batch.partner is None else batch.partner.to(device, non_blocking=True),
        None if batch.keys is None else replace(batch.keys, images=images),
    )
