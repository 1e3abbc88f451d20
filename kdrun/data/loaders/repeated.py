"""Repeated augmentation: fewer images per epoch, each of them in several views.

Hoffer et al. 2019, arXiv 1901.09335; Berman et al. 2019, arXiv 1902.05509; sampled as in DeiT.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kdrun.data.augment.views import Shown, joined
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.types import Batch, BatchKeys, Mixture
from kdrun.world import ALONE, World


class RepeatedLoader:
    """The batches of a TrainLoader in which each image of an epoch appears `repeats` times.

    An epoch has as many samples as before: the first 1/`repeats` of the epoch's random order, each
    image `repeats` times in the same batch (or the next one, where a batch ends in between). Its
    r-th view (from 0) in epoch e is the one of epoch e · repeats + r without repetition, so with
    `augment.cycle=K` it is view (e · repeats + r) mod K of that image. Order and views are pure
    functions of seed and epoch, and batches have cache keys as without repetition.

    loader: made for a single process; `world` shares each batch, as in TrainLoader.
    """

    def __init__(self, loader: TrainLoader, repeats: int, world: World = ALONE) -> None:
        assert loader.world.size == 1
        self.loader = loader
        self.repeats = repeats
        self.world = world
        self.batches_per_epoch = loader.batches_per_epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def parts(self, epoch: int, first_batch: int = 0) -> list[list[Tensor]]:
        """Per batch of `epoch`: the positions shown in their first, second, ... view."""
        loader, repeats = self.loader, self.repeats
        samples = loader.order(epoch).repeat_interleave(repeats)[: loader.num_images]
        view = torch.arange(loader.num_images) % repeats
        batches = zip(samples.split(loader.batch_size), view.split(loader.batch_size), strict=True)
        chosen = list(batches)[first_batch : self.batches_per_epoch]
        return [[index[shown == r] for r in range(repeats)] for index, shown in chosen]

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `first_batch` on."""
        parts = self.parts(epoch, first_batch)
        local = [self._local(batch) for batch in parts]
        streams = [
            self.loader.take(
                tuple(batch[r] for batch in local if len(batch[r])), epoch * self.repeats + r
            )
            for r in range(self.repeats)
        ]
        for number, (positions, own) in enumerate(zip(parts, local, strict=True), first_batch):
            shown = [next(streams[r]) for r, index in enumerate(own) if len(index)]
            batch = self._whole(positions, _joined(shown), epoch)
            batch.keys = BatchKeys(self, epoch, number, batch.for_teacher)
            yield batch

    def shown(self, epoch: int) -> tuple[Shown, ...]:
        """What each batch of `epoch` shows of this process's share."""
        first = epoch * self.repeats
        return tuple(
            joined(
                [
                    Shown(index, torch.full_like(index, first + r))
                    for r, index in enumerate(self._local(batch))
                ]
            )
            for batch in self.parts(epoch)
        )

    def _local(self, batch: list[Tensor]) -> list[Tensor]:
        """This process's share of a batch, by view."""
        start, end = self.world.share(sum(map(len, batch)))
        local, offset = [], 0
        for index in batch:
            first, last = (min(max(edge - offset, 0), len(index)) for edge in (start, end))
            local.append(index[first:last])
            offset += len(index)
        return local

    def _whole(self, batch: list[Tensor], local: Batch, epoch: int) -> Batch:
        """The batch with this process's images and the labels of all processes."""
        if self.world.size == 1:
            return local
        loader = self.loader
        positions = torch.cat(batch)
        mixtures = [
            loader.mixture(index, epoch * self.repeats + r)
            for r, index in enumerate(batch)
            if len(index)
        ]
        targets = loader.targets[positions.to(loader.targets.device)].to(loader.device)
        return Batch(
            local.images,
            targets,
            positions.to(loader.device),
            mixture=_joined_mixture(mixtures),
            teacher_images=local.teacher_images,
            strong_images=local.strong_images,
        )


def _joined(batches: list[Batch]) -> Batch:
    """One batch from several, their rows in order."""
    return Batch(
        torch.cat([batch.images for batch in batches]),
        torch.cat([batch.targets for batch in batches]),
        torch.cat([batch.index for batch in batches]),
        mixture=_joined_mixture([batch.mixture for batch in batches]),
        teacher_images=_joined_rows([batch.teacher_images for batch in batches]),
        strong_images=_joined_rows([batch.strong_images for batch in batches]),
    )


def _joined_rows(tensors: list[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present) if present else None


def _joined_mixture(mixtures: list[Mixture | None]) -> Mixture | None:
    present = [mixture for mixture in mixtures if mixture is not None]
    if not present:
        return None
    targets = torch.cat([mixture.targets for mixture in present])
    return Mixture(targets, torch.cat([mixture.share for mixture in present]))
