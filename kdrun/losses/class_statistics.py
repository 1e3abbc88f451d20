"""Statistics of embeddings by class: their means, and the similarity of classes by linear CKA."""

import torch
from torch import Tensor

from kdrun.errors import ConfigError

BLOCK_ELEMENTS = 1 << 24  # of the Gram matrices that are compared at once


def class_means(embeddings: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """The mean `[C, D]` of the embeddings `[N, D]` of each class; zeros for an empty class.

    targets: `[N]` int64 class numbers.
    """
    sums = embeddings.new_zeros(num_classes, embeddings.shape[1], dtype=torch.float64)
    sums.index_add_(0, targets, embeddings.double())
    counts = torch.bincount(targets, minlength=num_classes).clamp_min(1)
    return (sums / counts[:, None]).to(embeddings.dtype)


def first_of_each_class(targets: Tensor, num_classes: int) -> Tensor:
    """Positions `[C, n]` of the first n images of each class; -1 for a class without images.

    targets: `[N]` int64 class numbers. n: the size of the smallest class that has images.
    """
    counts = torch.bincount(targets, minlength=num_classes)
    size = int(counts[counts > 0].min()) if len(targets) else 0
    order = torch.argsort(targets, stable=True)
    starts = counts.cumsum(0) - counts
    places = (starts[:, None] + torch.arange(size)).clamp(max=max(len(targets) - 1, 0))
    return torch.where(counts[:, None] > 0, order[places], -1)


def class_similarity(embeddings: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Linear CKA `[C, C]` of the first n embeddings `[N, D]` of each class; see `linear_cka`.

    targets: `[N]` int64 class numbers. n: the size of the smallest class that has images. Raises
    ConfigError for a class of one image, whose embedding does not vary.
    """
    places = first_of_each_class(targets, num_classes)
    require_several(places)
    samples = embeddings[places.clamp_min(0)] * (places >= 0)[..., None]
    return linear_cka(samples).to(embeddings.dtype)


def require_several(places: Tensor) -> None:
    """Raise ConfigError unless places `[C, n]` are at least two of each class."""
    if places.shape[1] < 2:
        raise ConfigError(
            "loss.wkd_l.variant=cka compares how the embeddings of classes vary, but a class has a "
            "single training image: use loss.wkd_l.variant=classifier."
        )


def linear_cka(samples: Tensor) -> Tensor:
    """Linear CKA `[C, C]` between the classes of samples `[C, n, D]` (Kornblith et al. 2019).

    ‖X_jᵀ X_i‖² / (‖X_iᵀ X_i‖ · ‖X_jᵀ X_j‖), X_i `[n, D]` the samples of class i less their mean.
    The k-th sample of one class is paired with the k-th of another, so the order matters. A class
    whose samples do not differ is similar to itself alone. Computed in float64.
    """
    classes, size, _ = samples.shape
    centred = samples.double()
    centred = centred - centred.mean(dim=1, keepdim=True)
    products = centred.new_zeros(classes, classes)
    rows = max(1, BLOCK_ELEMENTS // max(1, classes * size))
    for start in range(0, size, rows):  # ‖X_jᵀ X_i‖² = Σ_ab (X_i X_iᵀ)_ab (X_j X_jᵀ)_ab
        grams = (centred[:, start : start + rows] @ centred.mT).flatten(1)
        products += grams @ grams.T
    norms = products.diagonal().sqrt()
    scale = norms[:, None] * norms
    similarity = torch.where(scale > 0, products / torch.where(scale > 0, scale, 1.0), 0.0)
    return similarity.fill_diagonal_(1.0)
