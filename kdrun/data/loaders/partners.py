"""Training batches with a second image of the same class per image."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kdrun.data.loaders.loaders import TrainLoader
from kdrun.seeds import generator
from kdrun.types import Batch


class PairedLoader:
    """The batches of a TrainLoader with `Batch.partner`.

    Pairs are a pure function of the loader's seed and the epoch, and a partner has the view that
    its image has in that epoch. So batch k of an epoch does not depend on earlier ones.
    """

    def __init__(self, loader: TrainLoader) -> None:
        self.loader = loader
        self.batches_per_epoch = loader.batches_per_epoch

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `first_batch` on."""
        partner = draw_partners(self.loader.split.targets, self.loader.seed, epoch)
        positions = tuple(partner[index] for index in self.loader.batches(epoch, first_batch))
        batches = self.loader.epoch(epoch, first_batch)
        partner_batches = self.loader.take(positions, epoch)
        for batch, partners in zip(batches, partner_batches, strict=True):
            yield replace(batch, partner=partners.images)


def draw_partners(targets: Tensor, seed: int, epoch: int) -> Tensor:
    """Positions `[N]` of a uniformly drawn other image of the same class for each image.

    targets: `[N]` class numbers. A class of one image is paired with itself.
    """
    by_class = targets.argsort(stable=True)
    rank = by_class.argsort()  # position of each image in that order
    counts = targets.bincount()
    size = counts[targets]
    first = (counts.cumsum(0) - counts)[targets]
    draw = torch.rand(len(targets), generator=generator(seed, "partner", epoch), dtype=torch.double)
    step = 1 + (draw * (size - 1)).long()  # 1 .. size - 1, cyclic within the class
    return by_class[first + (rank - first + step) % size]
