"""Batches of normalised images: shuffled and augmented for training, in order for evaluation.

Resident images are gathered on the device. Streamed images are read by worker processes and
augmented on the device with the same random integers. Both yield bit-identical batches.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdrun.config.schema import AugmentConfig
from kdrun.data.augment.views import (
    EpochViews,
    ImageViews,
    Plan,
    Shown,
    strong_plan,
    teacher_plan,
)
from kdrun.data.cropped import stored_split
from kdrun.data.images import Split
from kdrun.data.loaders.rendering import Rendering, check_pixels, storage
from kdrun.data.loaders.resident import ResidentImages, choose_resident
from kdrun.data.loaders.workers import prepare_worker
from kdrun.errors import KdrunError
from kdrun.seeds import generator
from kdrun.types import Batch, BatchKeys, Mixture, Normalisation
from kdrun.world import ALONE, World

PLAIN = AugmentConfig()


class Normaliser:
    """`(pixel / 255 - mean) / std` as one multiplication and one addition, in float32.

    Float values are not divided by 255.
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


class TrainLoader:
    """The training batches of any epoch, on `device`.

    Order and views are pure functions of `seed` and the epoch, so batch k does not depend on
    earlier ones. An epoch uses every image once. The last batch may be smaller; a last batch of a
    single image is dropped, because batch normalisation cannot use it.

    resident: true | false | auto (`choose_resident`); the attribute `resident` holds the choice.
    workers: worker processes when streaming; 0 reads in this process.
    memory_format: layout of the image batches.
    world: with several processes, images are this rank's share of each batch; targets and index
        cover the whole batch.
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
        check_pixels(augment, str(split.images.dtype).removeprefix("torch."))
        self.split = stored_split(split) if augment.crop == "resized" else split
        self.world = world
        self.batch_size = batch_size
        self.augment = augment
        self.seed = seed
        self.device = torch.device(device)
        self.workers = workers
        self.num_images = len(split)
        self.batches_per_epoch = count_batches(len(split), batch_size)
        self.normalise = Normaliser(normalisation, split.images.dtype, self.device, memory_format)
        self.mean = normalisation.mean
        self.resident = choose_resident(self.split, storage(augment), self.device, resident)
        self.stored = (
            ResidentImages(self.split, storage(augment), self.device) if self.resident else None
        )
        self.targets = split.targets.to(self.device) if self.resident else split.targets
        self.size = (split.shape[1], split.shape[2])
        plan = Plan(augment, seed, len(split))
        self.student = self._rendering(plan)
        same = augment.teacher_view == "same"
        self.teacher = self.student if same else self._rendering(teacher_plan(plan))
        self.strong = None if augment.strong is None else self._rendering(strong_plan(plan))
        self._order: tuple[int, Tensor] | None = None  # the last epoch and its permutation

    def _rendering(self, plan: Plan) -> Rendering:
        return Rendering(plan, self.size, self.normalise, self.stored, self.device, self.mean)

    def order(self, epoch: int) -> Tensor:
        """Positions `[N]` of the images in the order of `epoch`; the last epoch's is cached."""
        if self._order is None or self._order[0] != epoch:
            stream = generator(self.seed, "order", epoch)
            self._order = epoch, torch.randperm(self.num_images, generator=stream)
        return self._order[1]

    def views(self, epoch: int) -> EpochViews:
        """The view of each image in `epoch` as the student sees it, by position in the split."""
        return self.student.views(epoch)

    def images(
        self, index: Tensor, chosen: ImageViews, rendering: Rendering | None = None
    ) -> Tensor:
        """The images at `index` `[B]` (on the CPU), viewed and normalised as in a batch.

        rendering: for whom; None: the student.
        """
        rendering = rendering or self.student
        chosen = chosen.to(self.device)
        if self.stored is None:
            positions = torch.cat((index, rendering.partners(chosen.number, index)))
            pixels = self.split.gather(positions).to(self.device)
            return rendering.streamed(pixels[: len(index)], chosen, pixels[len(index) :])
        return rendering.resident(index.to(self.device), chosen)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from `first_batch` on, with cache keys."""
        batches = self.take(self.batches(epoch, first_batch), epoch)
        for number, batch in enumerate(batches, first_batch):
            batch.keys = BatchKeys(self, epoch, number, batch.for_teacher)
            yield batch

    def batches(self, epoch: int, first_batch: int = 0) -> tuple[Tensor, ...]:
        """Positions `[B]` of the images in each batch of `epoch`, from `first_batch` on."""
        batches = self.order(epoch).split(self.batch_size)
        return batches[first_batch : self.batches_per_epoch]

    def shown(self, epoch: int) -> tuple[Shown, ...]:
        """What each batch of `epoch` shows of this process's share."""
        batches = self.batches(epoch)
        local = [index[slice(*self.world.share(len(index)))] for index in batches]
        return tuple(Shown(index, torch.full_like(index, epoch)) for index in local)

    def take(self, batches: tuple[Tensor, ...], epoch: int) -> Iterator[Batch]:
        """One batch without cache keys per tensor of positions, with the views of `epoch`."""
        shares = [slice(*self.world.share(len(index))) for index in batches]
        local = tuple(index[share] for index, share in zip(batches, shares, strict=True))
        shown = self._epoch_views(epoch)
        number = shown["images"][1].number
        if self.stored is None:
            read = [torch.cat((own, self.student.partners(number, own))) for own in local]
            stream = _stream(self.split, tuple(read), self.workers, self.device)
            for positions, own, (pixels, targets, index) in zip(
                batches, local, stream, strict=True
            ):
                size = len(own)
                targets, index = targets[:size], index[:size]
                images: dict[str, Any] = {
                    name: rendering.streamed(
                        pixels[:size], epoch_views.select(own, index), pixels[size:]
                    )
                    for name, (rendering, epoch_views) in shown.items()
                }
                if size < len(positions):
                    index = positions.to(self.device)
                    targets = self.targets[positions].to(self.device)
                mixture = self._mixture(number, positions)
                yield Batch(targets=targets, index=index, mixture=mixture, **images)
            return
        on_device = _on_device(batches, self.device)
        for index, positions, own, share in zip(on_device, batches, local, shares, strict=True):
            images = {
                name: rendering.resident(index[share], epoch_views.select(own, index[share]))
                for name, (rendering, epoch_views) in shown.items()
            }
            targets = self.targets.index_select(0, index)
            mixture = self._mixture(number, positions)
            yield Batch(targets=targets, index=index, mixture=mixture, **images)

    def mixture(self, positions: Tensor, epoch: int) -> Mixture | None:
        """The second labels of the images at `positions` (on the CPU) in `epoch`; None: unmixed."""
        return self._mixture(self.student.plan.number(epoch), positions)

    def _mixture(self, number: int, positions: Tensor) -> Mixture | None:
        """The second labels of the images at `positions` (on the CPU), on the device."""
        mixing = self.student.mixing(number, positions)
        if mixing is None:
            return None
        targets = self.targets[mixing.partner.to(self.targets.device)]
        return Mixture(targets, mixing.share).to(self.device)

    def _epoch_views(self, epoch: int) -> dict[str, tuple[Rendering, EpochViews]]:
        """Field of `Batch` with images → (its rendering, the views of `epoch` on the device)."""
        shown = {"images": self.student}
        if self.teacher is not self.student:
            shown["teacher_images"] = self.teacher
        if self.strong is not None:
            shown["strong_images"] = self.strong
        return {
            name: (rendering, rendering.views(epoch).to(self.device))
            for name, rendering in shown.items()
        }


class EvalLoader:
    """All images of a split in order, without augmentation, on `device`.

    The last batch may be smaller. Arguments as for TrainLoader. With several processes, each rank
    iterates over its share of the split.
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
        first, end = self.world.share(self.num_images)
        return -(-(end - first) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        batches = torch.arange(*self.world.share(self.num_images)).split(self.batch_size)
        if self.pixels is None:
            for pixels, targets, index in _stream(self.split, batches, self.workers, self.device):
                yield Batch(self.normalise(pixels), targets, index)
            return
        for index in _on_device(batches, self.device):
            yield Batch(self.normalise(self.pixels[index]), self.targets[index], index)


def count_batches(num_images: int, batch_size: int) -> int:
    """Batches per training epoch, without a last batch of a single image after larger ones."""
    full, remainder = divmod(num_images, batch_size)
    single = remainder == 1 and full > 0
    return full + (0 if remainder == 0 or single else 1)


class _Reader:
    """Map-style dataset for torch's DataLoader; its items are whole batches."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, positions: Any) -> tuple[Tensor, Tensor, Tensor] | KdrunError:
        index = torch.from_numpy(positions)
        try:
            return self.split.gather(index), self.split.targets[index], index
        except KdrunError as error:  # torch would wrap the message in a worker's traceback
            return error


def _stream(
    split: Split, batches: tuple[Tensor, ...], workers: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(pixels, targets, index) per batch on `device`, read by `workers` processes."""
    loader: DataLoader[tuple[Tensor, Tensor, Tensor] | KdrunError] = DataLoader(
        _Reader(split),  # type: ignore[arg-type]
        batch_size=None,
        # NumPy arrays, because a tensor's shared memory may be freed before the worker maps it
        sampler=[index.numpy() for index in batches],
        num_workers=workers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # else every epoch draws from the global generator
        worker_init_fn=prepare_worker,
    )
    for item in loader:
        if isinstance(item, KdrunError):
            raise item
        pixels, targets, index = (tensor.to(device, non_blocking=True) for tensor in item)
        yield pixels, targets, index


def _on_device(batches: tuple[Tensor, ...], device: torch.device) -> Iterator[Tensor]:
    """The index of each batch, copied to `device` at once."""
    if batches:
        yield from torch.cat(batches).to(device).split([len(index) for index in batches])
