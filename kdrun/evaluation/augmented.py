"""The figure of a run's augmented training images."""

import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig, from_crop_flip
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.report.figures.augmented import View, augmented
from kdrun.report.figures.store import StoredFigure
from kdrun.ui.augmentation import format_augment

IMAGES = 6
EPOCHS = 3


def augmented_figure(config: DistillConfig, dataset: Dataset) -> StoredFigure | None:
    """The first training images of several classes in the views of the first epochs.

    None for a run with the data set's usual crops and flips.
    """
    if config.augment == from_crop_flip(config.dataset.augment):
        return None
    index = _several_classes(dataset.train.targets)
    plain = _loader(config, dataset, AugmentConfig())
    loader = _loader(config, dataset, config.augment)
    columns = [View("plain", _shown(dataset, plain, index, 0, "student"))]
    for epoch in range(EPOCHS):
        student = _shown(dataset, loader, index, epoch, "student")
        columns.append(View(f"epoch {epoch + 1}", student))
        if loader.teacher is not loader.student:
            columns.append(View("teacher", _shown(dataset, loader, index, epoch, "teacher")))
        if loader.strong is not None:
            columns.append(View("strong", _shown(dataset, loader, index, epoch, "strong")))
    return augmented(columns, format_augment(config.augment))


def _loader(config: DistillConfig, dataset: Dataset, augment: AugmentConfig) -> TrainLoader:
    return TrainLoader(
        dataset.train, dataset.normalisation, IMAGES, augment, config.seed, "cpu", resident="false"
    )


def _several_classes(targets: Tensor) -> Tensor:
    """Positions of up to IMAGES images, of as many classes as there are."""
    firsts = [int((targets == label).nonzero()[0]) for label in targets.unique()[:IMAGES]]
    others = [place for place in range(len(targets)) if place not in firsts]
    return torch.tensor((firsts + others)[:IMAGES])


def _shown(dataset: Dataset, loader: TrainLoader, index: Tensor, epoch: int, who: str) -> Tensor:
    """Images `[S, C, H, W]` of one network's view, without normalisation, in 0..1."""
    rendering = getattr(loader, who)
    images = loader.images(index, rendering.views(epoch).select(index), rendering)
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1)
        for values in (dataset.normalisation.mean, dataset.normalisation.std)
    )
    return (images * std + mean).clamp(0, 1)
