"""Shared data types: batches, network outputs, input descriptions, step results.

Shape letters used throughout: B batch, C classes, D embedding width, H height, W width.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchKeys:
    """Identify the image and view of each row of a batch, for cached network outputs.

    loader: its batches are pure functions of (epoch, number).
    images: `[B, ...]`, as produced by the loader for the teacher.
    """

    loader: Any
    epoch: int
    number: int
    images: Tensor

    def match(self, images: Tensor) -> bool:
        """Whether `images` has the same values, in any memory layout."""
        if images is self.images:
            return True
        same_kind = images.shape == self.images.shape and images.dtype == self.images.dtype
        return same_kind and torch.equal(images.to(self.images.device), self.images)


@dataclass(frozen=True)
class Mixture:
    """The second label of each image of a batch whose images are mixed (mixup, CutMix).

    targets: `[B]` int64 class number of the image that was mixed in.
    share: `[B]` float, λ: the share of the image itself, 0 to 1; 1 where nothing was mixed in.
    """

    targets: Tensor
    share: Tensor

    def to(self, device: torch.device) -> "Mixture":
        """The same mixture on `device`, copied asynchronously where the memory is pinned."""
        return Mixture(
            self.targets.to(device, non_blocking=True), self.share.to(device, non_blocking=True)
        )


@dataclass
class Batch:
    """Images and labels of one step, on the training device.

    images: `[B, ...]` float, normalised for the student.
    targets: `[B]` int64 class numbers; of a mixed image that of the image itself.
    index: `[B]` int64 position of each image in the transfer set.
    partner: `[B, ...]` another image of the same class, for schemes that compare pairs.
    keys: identify the teacher's images for caches; None for images without a fixed identity.
    mixture: the second labels and their shares, where the images are mixed.
    teacher_images: `[B, ...]` as the teacher sees them; None: as the student does.
    strong_images: `[B, ...]` the loader's strong view for losses that compare two; None: none.
    """

    images: Tensor
    targets: Tensor
    index: Tensor
    partner: Tensor | None = None
    keys: BatchKeys | None = None
    mixture: Mixture | None = None
    teacher_images: Tensor | None = None
    strong_images: Tensor | None = None

    @property
    def for_teacher(self) -> Tensor:
        """The images that teachers see."""
        return self.images if self.teacher_images is None else self.teacher_images

    def __len__(self) -> int:
        return self.targets.shape[0]

    @property
    def dominant_targets(self) -> Tensor:
        """`[B]`: the label with the larger share; of two halves that of the image itself."""
        if self.mixture is None:
            return self.targets
        return torch.where(self.mixture.share >= 0.5, self.targets, self.mixture.targets)


@dataclass
class Outputs:
    """The outputs of a network for a batch.

    logits: `[B, C]`.
    features: tap name → tensor, e.g. `stage3` → `[B, channels, H, W]`.
    embedding: `[B, D]`, the input of the classifier; None unless requested.
    strong: outputs for a strongly augmented view of the batch, for losses that need one.
    distillation: `[B, C]` per distillation token, for networks with such tokens. `logits` are then
        those of the class head in training mode, and of the configured heads in evaluation mode.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    embedding: Tensor | None = None
    strong: "Outputs | None" = None
    distillation: tuple[Tensor, ...] = ()

    def detached(self) -> "Outputs":
        """The same tensors, detached from the graph."""
        return Outputs(
            self.logits.detach(),
            {name: tensor.detach() for name, tensor in self.features.items()},
            None if self.embedding is None else self.embedding.detach(),
            None if self.strong is None else self.strong.detached(),
            tuple(logits.detach() for logits in self.distillation),
        )


@dataclass(frozen=True)
class InputInfo:
    """Input description for building a network.

    image_size: (height, width) in pixels.
    """

    num_classes: int
    in_channels: int
    image_size: tuple[int, int]


@dataclass(frozen=True)
class Normalisation:
    """Per-channel constants: inputs are `(pixel / 255 - mean) / std`."""

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
    """Result of a scheme for one batch.

    loss: scalar to minimise.
    logits: `[B, C]` of the trained network, for the training accuracy.
    parts: name → detached scalar, logged in addition to the loss.
    groups: name → scalar in the graph; an optimiser may treat them
        differently (`task`: labels, `distill`: teacher). `target`, where an optimiser needs it, is
        a part of `distill`.
    losses: name of each loss and `ce` → its weighted part of the loss, in the graph.
    """

    loss: Tensor
    logits: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`, copied asynchronously where the memory is pinned."""

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    images = batch.images.to(device, non_blocking=True)
    teacher_images = moved(batch.teacher_images)
    keyed = images if teacher_images is None else teacher_images
    return replace(
        batch,
        images=images,
        targets=batch.targets.to(device, non_blocking=True),
        index=batch.index.to(device, non_blocking=True),
        partner=moved(batch.partner),
        keys=None if batch.keys is None else replace(batch.keys, images=keyed),
        teacher_images=teacher_images,
        strong_images=moved(batch.strong_images),
        mixture=None if batch.mixture is None else batch.mixture.to(device),
    )
