"""Batches of normalised images: shuffled and augmented for training, in order for measuring.

Resident images are gathered on the device; streamed ones are read by loader processes and
augmented on the device with the same integers. Both give the same batches, bit for bit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdrun.config.schema import AugmentConfig
from kdrun.data.images import Split
from kdrun.data.loaders import views
from kdrun.data.loaders.resident import ResidentImages, choose_resident
from kdrun.data.loaders.views import Views
from kdrun.data.loaders.workers import prepare_worker
from kdrun.errors import KdrunError
from kdrun.seeds import generator
from kdrun.types import Batch, BatchKeys, Normalisation
from kdrun.world import ALONE, World

PLAIN = AugmentConfig()


class Normaliser:
    """`(pixel / 255 - mean) / std` as one multiplication and one addition, in float32.

    Values that are stored as float are taken as they are, without the division by 255.
    """

    def __init__(
        self,
        normalisation: Normalisation,
        stored: torch.dtype,
        device: torch.device,
        memory_format: torch.memory_format,
    ) -> None:
        largest = 255.0 if stored == torch.uint8 else 1.0
        mean = torch.tensor(normalisation.mean, dtype=torch.float64)
        std = torch.tensor(normalisation.std, dtype=torch.float64)
        self.scale = (1 / (largest * std)).float().view(1, -1, 1, 1).to(device)
        self.shift = (-mean / std).float().view(1, -1, 1, 1).to(device)
        self.memory_format = memory_format

    def __call__(self, pixels: Tensor) -> Tensor:
        """`[B, C, H, W]` stored values → the same shape in float32, normalised."""
        values = pixels.to(torch.float32, memory_format=self.memory_format, copy=True)
        return values.mul_(self.scale).add_(self.shift)


@dataclass(frozen=True)
class _Drawn:
    """What was drawn for an epoch: a permutation `[N]` and the views of all images."""

    epoch: int
    order: Tensor
    views: Views


class TrainLoader:
    """The training batches of any epoch, on `device`.

    Order and views are pure functions of `seed` and the epoch, so batch k of an epoch is the same
    whether or not the ones before it were asked for. Every epoch takes every image once; the last
    batch holds what is left, except that a single image left over is passed over in that epoch,
    because batch normalisation cannot use it.

    resident: true | false | auto (`choose_resident`); what was chosen is in `.resident`.
    workers: loader processes when streaming; 0 reads in this process.
    memory_format: layout of the images that are handed out.
    world: with several processes the images are this one's share of each batch; targets and index
        are those of the whole batch.
    """

    def __init__(
        self,
        split: Split,
        normalisation: Normalisation,
        batch_size: int,
        augment: AugmentConfig,
        seed: int,
        device: torch.device | str,
        *,
        resident: bool | str = "auto",
        workers: int = 0,
        memory_format: torch.memory_format = torch.contiguous_format,
        world: World = ALONE,
    ) -> None:
        self.split = split
        self.world = world
        self.batch_size = batch_size
        self.augment = augment
        self.seed = seed
        self.device = torch.device(device)
        self.workers = workers
        self.num_images = len(split)
        self.batches_per_epoch = count_batches(len(split), batch_size)
        self.normalise = Normaliser(normalisation, split.images.dtype, self.device, memory_format)
        self.resident = choose_resident(split, augment, self.device, resident)
        self.stored = ResidentImages(split, augment, self.device) if self.resident else None
        self.targets = split.targets.to(self.device) if self.resident else split.targets
        self._drawn: _Drawn | None = None

    def order(self, epoch: int) -> Tensor:
        """`[N]` positions of the images in the order in which `epoch` takes them."""
        return self._plan(epoch).order

    def views(self, epoch: int) -> Views:
        """How each image of the split is seen in `epoch`, by its position in the split."""
        return self._plan(epoch).views

    def _plan(self, epoch: int) -> "_Drawn":
        """The draws of an epoch; those of the last one asked for are kept: several ask for them."""
        if self._drawn is None or self._drawn.epoch != epoch:
            stream = generator(self.seed, "order", epoch)
            order = torch.randperm(self.num_images, generator=stream)
            seen = views.draw(self.num_images, self.augment, self.seed, epoch)
            self._drawn = _Drawn(epoch, order, seen)
        return self._drawn

    def images(self, index: Tensor, seen: Views) -> Tensor:
        """The images at `index` `[B]` (on the CPU) as `seen`, as a batch would have them."""
        seen = seen.to(self.device)
        if self.stored is None:
            pixels = views.apply(self.split.gather(index).to(self.device), seen, self.augment)
        else:
            pixels = self.stored.take(index.to(self.device), seen)
        return self.normalise(pixels)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first_batch` on, with their keys."""
        batches = self.take(self.batches(epoch, first_batch), epoch)
        for number, batch in enumerate(batches, first_batch):
            batch.keys = BatchKeys(self, epoch, number, batch.images)
            yield batch

    def batches(self, epoch: int, first_batch: int = 0) -> tuple[Tensor, ...]:
        """Positions `[B]` of the images in each batch of `epoch`, from `first_batch` on."""
        batches = self.order(epoch).split(self.batch_size)
        return batches[first_batch : self.batches_per_epoch]

    def take(self, batches: tuple[Tensor, ...], epoch: int) -> Iterator[Batch]:
        """A batch without keys for each tensor of positions, each image as `epoch` views it."""
        seen = self.views(epoch).to(self.device)
        shares = [slice(*self.world.share(len(index))) for index in batches]
        if self.stored is None:
            own = tuple(index[share] for index, share in zip(batches, shares, strict=True))
            read = _stream(self.split, own, self.workers, self.device)
            for whole, (pixels, targets, index) in zip(batches, read, strict=True):
                pixels = views.apply(pixels, seen.select(index), self.augment)
                if len(index) < len(whole):
                    index = whole.to(self.device)
                    targets = self.targets[whole].to(self.device)
                yield Batch(self.normalise(pixels), targets, index)
            return
        for index, share in zip(_on_device(batches, self.device), shares, strict=True):
            own_index = index[share]
            pixels = self.stored.take(own_index, seen.select(own_index))
            yield Batch(self.normalise(pixels), self.targets.index_select(0, index), index)


class EvalLoader:
    """All images of a split in order, without augmentation, on `device`; the last batch is short.

    Arguments as for TrainLoader. With several processes each has a share of the split.
    """

    def __init__(
        self,
        split: Split,
        normalisation: Normalisation,
        batch_size: int,
        device: torch.device | str,
        *,
        resident: bool | str = "auto",
        workers: int = 0,
        memory_format: torch.memory_format = torch.contiguous_format,
        world: World = ALONE,
    ) -> None:
        self.split = split
        self.world = world
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.workers = workers
        self.num_images = len(split)
        self.normalise = Normaliser(normalisation, split.images.dtype, self.device, memory_format)
        self.resident = choose_resident(split, PLAIN, self.device, resident)
        self.pixels = split.in_memory().to(self.device) if self.resident else None
        self.targets = split.targets.to(self.device) if self.resident else split.targets

    def __len__(self) -> int:
        first, behind = self.world.share(self.num_images)
        return -(-(behind - first) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        batches = torch.arange(*self.world.share(self.num_images)).split(self.batch_size)
        if self.pixels is None:
            for pixels, targets, index in _stream(self.split, batches, self.workers, self.device):
                yield Batch(self.normalise(pixels), targets, index)
            return
        for index in _on_device(batches, self.device):
            yield Batch(self.normalise(self.pixels[index]), self.targets[index], index)


def count_batches(num_images: int, batch_size: int) -> int:
    """Batches of a training epoch: all images, but no batch of one after larger ones."""
    full, rest = divmod(num_images, batch_size)
    lone = rest == 1 and full > 0
    return full + (0 if rest == 0 or lone else 1)


class _Reader:
    """The map-style data set of torch's DataLoader whose items are whole batches of pixels."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, positions: Any) -> tuple[Tensor, Tensor, Tensor] | KdrunError:
        index = torch.from_numpy(positions)
        try:
            return self.split.gather(index), self.split.targets[index], index
        except KdrunError as error:  # torch would bury its sentence under a worker's traceback
            return error


def _stream(
    split: Split, batches: tuple[Tensor, ...], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(pixels, targets, index) of each batch, read by `workers` processes, on `device`."""
    loader: DataLoader[tuple[Tensor, Tensor, Tensor] | KdrunError] = DataLoader(
        _Reader(split),  # type: ignore[arg-type]
        batch_size=None,
        # arrays: a worker asks this process for the memory of a tensor, and it may be gone by then
        sampler=[index.numpy() for index in batches],
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else every epoch would draw from the global generator
        worker_init_fn=prepare_worker,
    )
    for part in loader:
        if isinstance(part, KdrunError):
            raise part
        pixels, targets, index = (tensor.to(device, non_blocking=True) for tensor in part)
        yield pixels, targets, index


def _on_device(batches: tuple[Tensor, ...], device: torch.device) -> Iterator[Tensor]:
    """The index of each batch, sent to `device` in one copy."""
    if batches:
        yield from torch.cat(batches).to(device).split(len(batches[0]))
