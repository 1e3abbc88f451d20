"""A frozen teacher whose outputs are cached on disk by image and view.

An image has a finite number of training views (`kdrun.data.augment.views`): its crops and flips, or
one for each epoch of `augment.cycle`. Outputs are stored under (image, number of the view) and
reused by this run and later ones. `Batch.keys` holds these keys.

What holds: a value depends on the image, its view, the teacher and how it is run (all in the file's
key), never on what the file held before. Every value is computed in a batch of the same size
(`CHUNK` images), whichever images those are, and passes through the stored precision whether it
was found or computed. On a CPU most kernels give a row the same bits whatever the other rows are
and wherever it stands; `agreement` measures whether this teacher's do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kdrun.data.augment.views import EpochViews, ImageViews, Plan, Shown, joined
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.errors import CheckpointError
from kdrun.teachers.cache_file import CacheFile
from kdrun.types import BatchKeys, Outputs

CHUNK = {"cpu": 64, "cuda": 256}
LOOK_AHEAD = 32  # batches: the missing images of later batches fill up a chunk
# How many values of the largest dtype numpy has no name for are kept: as their bits.
STORED = {
    torch.float32: ("float32", None),
    torch.float16: ("float16", None),
    torch.bfloat16: ("uint16", torch.uint16),
    torch.float64: ("float64", None),
}


def chunk_size(device: torch.device) -> int:
    """Images per forward pass whose outputs are cached."""
    return CHUNK.get(device.type, 64)


def slots_of(chosen: ImageViews, plan: Plan) -> Any:
    """The record number of each (image, view), an int64 array."""
    assert plan.view_count is not None
    return (chosen.index * plan.view_count + plan.view_numbers(chosen)).numpy()


@dataclass
class Counts:
    """images: lookups. computed: images put through the teacher, for a batch or ahead of it."""

    images: int = 0
    computed: int = 0

    @property
    def found(self) -> int:
        """Cache hits."""
        return max(self.images - self.computed, 0)

    def share(self) -> float:
        """Hits in percent of the lookups."""
        return 100.0 * self.found / self.images if self.images else 0.0


@dataclass
class _Place:
    """Position in the training: the plan of an epoch and the number of the current batch.

    order: what each batch shows. views: the teacher's, of every epoch that occurs in `order`.
    ahead: record number → values computed for later batches that have no room in the file.
    """

    loader: TrainLoader
    epoch: int
    order: tuple[Shown, ...]
    views: dict[int, EpochViews] = field(default_factory=dict)
    number: int = -1
    ahead: dict[int, Any] = field(default_factory=dict)

    def is_of(self, loader: TrainLoader, epoch: int) -> bool:
        """Whether this is the plan of that epoch."""
        return self.loader is loader and self.epoch == epoch

    def parts(self, shown: Shown) -> list[tuple[Tensor, ImageViews]]:
        """(rows, their views) by epoch."""
        return [
            (rows, self._views(epoch).select(shown.index[rows])) for epoch, rows in shown.by_epoch()
        ]

    def _views(self, epoch: int) -> EpochViews:
        if epoch not in self.views:
            self.views[epoch] = self.loader.teacher.views(epoch)
        return self.views[epoch]

    def images(self, shown: Shown) -> Tensor:
        """The teacher's images of `shown`, in order."""
        parts = self.parts(shown)
        images = [
            self.loader.images(shown.index[rows], views, self.loader.teacher)
            for rows, views in parts
        ]
        if len(parts) == 1:
            return images[0]
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat(images)[order.to(images[0].device)]


class CachedTeacher(nn.Module):
    """images `[B, C, H, W]` → `Outputs` with logits, and the embedding where it is kept.

    teacher: the frozen one. file: its records. storable: images that the file has room for.
    sizes: batches of other sizes are put through the teacher directly; None caches all.
    plan: the teacher's views of the images. dtype: of the stored values. widths: classes, and the
    embedding's width (0: not kept).

    Records are looked up by the batch's keys, and only for the images that these describe: other
    images (another view, a mixture) and images without keys go to the teacher.
    """

    reads_keys = True

    def __init__(
        self,
        teacher: nn.Module,
        file: CacheFile,
        storable: int,
        plan: Plan,
        dtype: torch.dtype,
        widths: tuple[int, int],
        device: torch.device,
        sizes: set[int] | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__()
        self.teacher = teacher
        self.file = file
        self.storable = storable
        self.plan = plan
        self.dtype = dtype
        self.widths = widths
        self.device = device
        self.sizes = sizes
        self.warn = warn
        self.counts = Counts()
        self.writes = True
        self._place: _Place | None = None

    def forward(self, images: Tensor, keys: BatchKeys | None = None) -> Outputs:
        if self.sizes is not None and len(images) not in self.sizes:
            keys = None
        if keys is None or not keys.match(images):
            direct: Outputs = self.teacher(images)
            return direct
        values = self._values(self._place_of(keys), keys.images)
        logits, embedding = values.to(self.device, non_blocking=True).split(self.widths, dim=1)
        return Outputs(logits, {}, embedding if self.widths[1] else None)

    def _place_of(self, keys: BatchKeys) -> _Place:
        """Position of a batch in the training; the plan of the epoch is reused."""
        loader: TrainLoader = keys.loader
        if self._place is None or not self._place.is_of(loader, keys.epoch):
            self._place = _Place(loader, keys.epoch, loader.shown(keys.epoch))
        self._place.number = keys.number
        return self._place

    # -----------------------------------------------------------------------------------------

    def _values(self, place: _Place, images: Tensor) -> Tensor:
        """`[B, width]` on the CPU: from the cache, or computed and cached."""
        shown = place.order[place.number]
        slots = self._slots(place, shown)
        values, valid = self._find(shown.index, slots, place.ahead)
        self.counts.images += len(shown)
        missing = np.flatnonzero(~valid)
        if len(missing):
            self._compute(place, images, shown.index, slots, missing, values)
        outputs = _as_tensor(values, self.dtype)
        self._require_finite(outputs)
        return outputs

    def _require_finite(self, outputs: Tensor) -> None:
        bad = int(outputs.isfinite().all(dim=1).logical_not().sum().item())
        if bad:
            stored = str(self.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"The teacher's outputs, stored as {stored} in {self.file.path}, are NaN or "
                f"infinite for {bad} of {len(outputs)} images of a batch: set teacher.cache=off "
                "teacher.precision=fp32, or choose another teacher."
            )

    def _slots(self, place: _Place, shown: Shown) -> Any:
        slots = np.empty(len(shown), dtype=np.int64)
        for rows, views in place.parts(shown):
            slots[rows.numpy()] = slots_of(views, self.plan)
        return slots

    def _read(self, index: Tensor, slots: Any) -> tuple[Any, Any]:
        """(values, which are valid); images that the file has no room for never are."""
        kept = (index < self.storable).numpy()
        values, valid = self.file.read(np.where(kept, slots, 0))
        return values, valid & kept

    def _find(self, index: Tensor, slots: Any, ahead: dict[int, Any]) -> tuple[Any, Any]:
        values, valid = self._read(index, slots)
        for row in np.flatnonzero(~valid):
            found = ahead.pop(int(slots[row]), None)
            if found is not None:
                values[row], valid[row] = found, True
        return values, valid

    def _compute(
        self, place: _Place, images: Tensor, index: Tensor, slots: Any, missing: Any, values: Any
    ) -> None:
        """Fill the missing rows of `values`; later batches' missing images fill up the chunk."""
        rows = torch.from_numpy(missing).to(images.device)
        wanted = images[rows]
        extra = self._look_ahead(place, -len(missing) % chunk_size(self.device))
        if extra is not None:
            wanted = torch.cat((wanted, place.images(extra)))
        computed = self._run(wanted)
        values[missing] = computed[: len(missing)]
        self.counts.computed += len(computed)
        self._write(index[torch.from_numpy(missing)], slots[missing], computed[: len(missing)])
        if extra is not None:
            ahead, ahead_slots = computed[len(missing) :], self._slots(place, extra)
            kept = self._write(extra.index, ahead_slots, ahead)
            for row in np.flatnonzero(~kept):  # the others are in the file when their batch comes
                place.ahead[int(ahead_slots[row])] = ahead[row]

    def _look_ahead(self, place: _Place, room: int) -> Shown | None:
        """At most `room` images that later batches of the epoch will need.

        Only of resident images: a streamed one would be read twice.
        """
        loader = place.loader
        if room == 0 or loader.stored is None:
            return None
        chosen: list[Shown] = []
        first = place.number + 1
        for shown in place.order[first : first + LOOK_AHEAD]:
            if self.sizes is not None and len(shown) not in self.sizes:
                continue
            slots = self._slots(place, shown)
            _, valid = self._read(shown.index, slots)
            valid |= np.array([int(slot) in place.ahead for slot in slots], dtype=bool)
            rows = torch.from_numpy(np.flatnonzero(~valid)[:room])
            if len(rows):
                chosen.append(shown.select(rows))
                room -= len(rows)
            if room == 0:
                break
        return joined(chosen) if chosen else None

    @torch.no_grad()
    def _run(self, images: Tensor) -> Any:
        """The outputs of `images` in chunks of the one size, in the stored precision."""
        size = chunk_size(self.device)
        parts = []
        for chunk in images.split(size):
            parts.append(pack(self.teacher(self._full(chunk, size)), self.widths)[: len(chunk)])
        return _as_array(torch.cat(parts).to(self.dtype).cpu())

    @staticmethod
    def _full(images: Tensor, size: int) -> Tensor:
        """A chunk of exactly `size` images, in the layout they came in; repeats fill it up."""
        if len(images) == size:
            return images
        channels_last = images.is_contiguous(memory_format=torch.channels_last)
        filler = images[:1].expand(size - len(images), *images.shape[1:])
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return torch.cat((images, filler)).contiguous(memory_format=layout)

    def _write(self, index: Tensor, slots: Any, values: Any) -> Any:
        """Keep what the file has room for; which rows it has now."""
        kept: Any = (index < self.storable).numpy() & self.writes
        try:
            self.file.write(slots[kept], values[kept])
        except OSError as error:
            self.writes = False
            self.warn(
                f"The teacher's outputs cannot be written to {self.file.path} ({error.strerror}): "
                "training continues without caching more."
            )
        return kept & self.writes


def pack(outputs: Outputs, widths: tuple[int, int]) -> Tensor:
    """What is stored of outputs, `[B, sum(widths)]`: logits, then the embedding if it has width."""
    if not widths[1]:
        return outputs.logits
    assert outputs.embedding is not None
    return torch.cat((outputs.logits, outputs.embedding.to(outputs.logits.dtype)), dim=1)


def cached_teachers(teachers: Sequence[Any]) -> list[CachedTeacher]:
    """The cached ones of prepared teachers; one may be inside a wrapper that jobs share."""
    inner = [t if isinstance(t, CachedTeacher) else getattr(t, "teacher", t) for t in teachers]
    return [teacher for teacher in inner if isinstance(teacher, CachedTeacher)]


def cache_entries(teachers: Sequence[Any]) -> list[dict[str, Any]]:
    """`teacher_cache` in `result.json`; its counts start when a run is started or resumed."""
    return [
        {
            "file": str(teacher.file.path),
            "images": teacher.counts.images,
            "computed": teacher.counts.computed,
            "found_percent": round(teacher.counts.share(), 2),
            "images_with_room": teacher.storable,
        }
        for teacher in cached_teachers(teachers)
    ]


def _as_array(values: Tensor) -> Any:
    _, bits = STORED[values.dtype]
    return (values if bits is None else values.view(bits)).numpy()


def _as_tensor(values: Any, dtype: torch.dtype) -> Tensor:
    found = torch.from_numpy(values)
    return found if STORED[dtype][1] is None else found.view(dtype)
