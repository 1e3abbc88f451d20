"""Losses that read one label per image, for mixed images, which have two.

Such a loss L(z, y) becomes λ · L(z, y) + (1 - λ) · L(z, y') for each image, y' the label of the
image mixed in and λ the share of the image itself. Cross-entropy with mixed (soft) labels is linear
in the labels and thus the same sum.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.types import Batch

# (class numbers [B], weights [B] or None) -> weighted mean over the batch, a scalar
LabelLoss = Callable[[Tensor, Tensor | None], Tensor]


def mean_over_labels(loss: LabelLoss, batch: Batch) -> Tensor:
    """The loss of a batch, for both labels of each image where images are mixed."""
    if batch.mixture is None:
        return loss(batch.targets, None)
    share = batch.mixture.share
    return loss(batch.targets, share) + loss(batch.mixture.targets, 1.0 - share)


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """The mean over B of values `[B]`, each multiplied by its weight `[B]`."""
    return values.mean() if weights is None else (values * weights).mean()


def label_cross_entropy(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of logits `[B, C]` with the labels of a batch, averaged over B."""

    def loss(targets: Tensor, weights: Tensor | None) -> Tensor:
        if weights is None:
            return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        values = F.cross_entropy(logits, targets, reduction="none", label_smoothing=label_smoothing)
        return weighted_mean(values, weights)

    return mean_over_labels(loss, batch)


def soft_labels(
    batch: Batch, num_classes: int, label_smoothing: float, dtype: torch.dtype
) -> Tensor:
    """The labels of a batch as shares of each class, `[B, C]`; each row sums to 1.

    Smoothing ε gives the label 1 - ε + ε / C and every other class ε / C, as in timm.
    """

    def smoothed(targets: Tensor) -> Tensor:
        off = label_smoothing / num_classes
        return F.one_hot(targets, num_classes).to(dtype) * (1.0 - label_smoothing) + off

    labels = smoothed(batch.targets)
    if batch.mixture is None:
        return labels
    share = batch.mixture.share.to(dtype)[:, None]
    return share * labels + (1.0 - share) * smoothed(batch.mixture.targets)
