"""A second image of the same class beside every training image."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from kdrun.data.loaders.loaders import TrainLoader
from kdrun.seeds import generator
from kdrun.types import Batch


class PairedLoader:
    """The batches of a TrainLoader, each with `Batch.partner`.

    Who is paired with whom is a pure function of the loader's seed and the epoch, and a partner is
    seen as it is seen in that epoch when its own turn comes; so batch k of an epoch is the same
    whether or not the ones before it were asked for.
    """

    def __init__(self, loader: TrainLoader) -> None:
        self.loader = loader
        self.batches_per_epoch = loader.batches_per_epoch

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first_batch` on."""
        partner = draw_partners(self.loader.split.targets, self.loader.seed, epoch)
        positions = tuple(partner[index] for index in self.loader.batches(epoch, first_batch))
        own = self.loader.epoch(epoch, first_batch)
        others = self.loader.take(positions, epoch)
        for batch, other in zip(own, others, strict=True):
            yield replace(batch, partner=other.images)


def draw_partners(targets: Tensor, seed: int, epoch: int) -> Tensor:
    """For each image another one of its class, drawn evenly among them: `[N]` positions.

    targets: `[N]` class numbers. The only image of a class is its own partner.
    """
    by_class = targets.argsort(stable=True)
    place = by_class.argsort()  # where each image stands in that order
    counts = targets.bincount()
    size = counts[targets]
    first = (counts.cumsum(0) - counts)[targets]
    draw = torch.rand(len(targets), generator=generator(seed, "partner", epoch), dtype=torch.double)
    step = 1 + (draw * (size - 1)).long()  # 1 .. size - 1 places further, around the class
    return by_class[first + (place - first + step) % size]
