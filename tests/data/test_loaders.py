"""Batches: order, resuming, normalisation, and resident against streamed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kdrun.config.schema import AugmentConfig
from kdrun.data.augment.crops import Crops
from kdrun.data.images import Split, StoredImages
from kdrun.data.loaders import loaders, resident
from kdrun.data.loaders.loaders import EvalLoader, TrainLoader, count_batches
from kdrun.data.loaders.resident import choose_resident, resident_bytes
from kdrun.types import Batch, Normalisation
from kdrun.vision import import_torchvision

NORMAL = Normalisation((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
AUGMENT = AugmentConfig(2, True)
CPU = torch.device("cpu")


def split(count: int = 50) -> Split:
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 8, 6), generator=stream).to(torch.uint8)
    return Split(images, torch.randint(7, (count,), generator=stream))


def train(data: Split | None = None, **changes: object) -> TrainLoader:
    settings = {"batch_size": 16, "augment": AUGMENT, "seed": 5, "device": "cpu"} | changes
    return TrainLoader(data or split(), NORMAL, **settings)  # type: ignore[arg-type]


def same(left: Batch, right: Batch) -> bool:
    return all(
        torch.equal(getattr(left, name), getattr(right, name))
        for name in ("images", "targets", "index")
    )


def all_same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) > 0 and all(map(same, left, right))


@pytest.mark.parametrize("keep", [True, False])
def test_an_epoch_takes_every_image_once_with_its_label(keep: bool) -> None:
    data = split()
    loader = train(data, resident=keep)
    batches = list(loader.epoch(0))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    assert loader.batches_per_epoch == 4
    index = torch.cat([batch.index for batch in batches])
    assert index.sort().values.tolist() == list(range(50))
    assert not torch.equal(index, torch.arange(50))
    assert torch.equal(torch.cat([batch.targets for batch in batches]), data.targets[index])


@pytest.mark.parametrize("keep", [True, False])
def test_any_batch_of_any_epoch_can_be_asked_for_alone(keep: bool) -> None:
    whole = list(train(resident=keep).epoch(3))
    loader = train(resident=keep)
    next(loader.epoch(1))  # an abandoned epoch leaves no trace
    for first in range(4):
        assert all_same(list(loader.epoch(3, first)), whole[first:])
    assert list(loader.epoch(3, 4)) == []


def test_seed_and_epoch_change_order_and_views() -> None:
    first = next(train().epoch(0))
    for other in (next(train().epoch(1)), next(train(seed=6).epoch(0))):
        assert not torch.equal(first.index, other.index)
    assert same(first, next(train().epoch(0)))


def test_the_order_does_not_depend_on_augmentation() -> None:
    plain = next(train(augment=AugmentConfig()).epoch(2))
    assert torch.equal(plain.index, next(train().epoch(2)).index)


@pytest.mark.parametrize(
    "augment",
    [
        AugmentConfig(),
        AUGMENT,
        AugmentConfig(0, True),
        AugmentConfig(9, True, padding_mode="reflect"),
    ],
)
def test_resident_and_streamed_training_are_bit_identical(augment: AugmentConfig) -> None:
    kept, streamed = train(augment=augment, resident=True), train(augment=augment, resident=False)
    assert kept.resident
    assert not streamed.resident
    for epoch in (0, 1):
        assert all_same(list(kept.epoch(epoch)), list(streamed.epoch(epoch)))


def test_loader_processes_give_the_same_batches(tmp_path: Path) -> None:
    data = split()
    np.save(tmp_path / "train.npy", data.in_memory().numpy())
    mapped = Split(StoredImages(tmp_path / "train.npy"), data.targets)
    streamed = train(mapped, resident=False, workers=2)
    assert all_same(list(streamed.epoch(4, 1)), list(train(data).epoch(4, 1)))


def test_streaming_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    list(train(resident=False).epoch(0))
    assert torch.equal(torch.rand(3), expected)


def test_a_batch_equals_the_usual_transforms() -> None:
    functional = import_torchvision().transforms.functional
    data, loader = split(), train()
    seen: Crops = loader.views(2).crops
    for batch in loader.epoch(2):
        for image, position in zip(batch.images, batch.index.tolist(), strict=True):
            pixels = data.in_memory()[position]
            padded = functional.pad(pixels, [2] * 4)
            place = int(seen.dy[position]), int(seen.dx[position])
            expected = functional.crop(padded, *place, 8, 6)
            if seen.flip[position]:
                expected = functional.hflip(expected)
            expected = functional.normalize(expected.float() / 255, NORMAL.mean, NORMAL.std)
            assert (image - expected).abs().max() < 1e-6


@pytest.mark.parametrize("keep", [True, False])
def test_evaluation_is_in_order_and_ends_short(keep: bool) -> None:
    data = split()
    loader = EvalLoader(data, NORMAL, 16, "cpu", resident=keep)
    for _ in range(2):
        batches = list(loader)
        assert [len(batch) for batch in batches] == [16, 16, 16, 2]
        assert len(loader) == 4
        assert torch.equal(torch.cat([b.index for b in batches]), torch.arange(50))
        assert torch.equal(torch.cat([b.targets for b in batches]), data.targets)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (NORMAL.mean, NORMAL.std))
        expected = (data.in_memory() / 255 - mean) / std
        assert (torch.cat([b.images for b in batches]) - expected).abs().max() < 1e-6


def test_resident_and_streamed_evaluation_are_bit_identical() -> None:
    kept, streamed = (
        list(EvalLoader(split(), NORMAL, 7, "cpu", resident=keep)) for keep in (True, False)
    )
    assert all_same(kept, streamed)


def test_float_values_are_not_divided_by_255_and_not_overwritten() -> None:
    images = torch.rand(6, 3, 4, 4)
    before = images.clone()
    data = Split(images, torch.zeros(6, dtype=torch.int64))
    batch = next(iter(EvalLoader(data, NORMAL, 6, "cpu")))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (NORMAL.mean, NORMAL.std))
    assert torch.allclose(batch.images, (before - mean) / std, atol=1e-6)
    assert torch.equal(images, before)


def test_channels_last_changes_the_layout_only() -> None:
    plain, last = next(train().epoch(0)), next(train(memory_format=torch.channels_last).epoch(0))
    assert last.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.images, last.images)


@pytest.mark.parametrize(
    ("images", "size", "batches"),
    [(50, 16, 4), (48, 16, 3), (49, 16, 3), (1, 16, 1), (16, 16, 1), (3, 1, 3), (17, 16, 1)],
)
def test_no_batch_of_one_after_larger_ones(images: int, size: int, batches: int) -> None:
    assert count_batches(images, size) == batches
    found = list(train(split(images), batch_size=size).epoch(0))
    assert len(found) == batches


def test_the_lone_image_differs_between_epochs() -> None:
    loader = train(split(17))
    left_out = {
        (set(range(17)) - set(next(loader.epoch(epoch)).index.tolist())).pop()
        for epoch in range(20)
    }
    assert len(left_out) > 5


def test_border_and_mirror_count_in_the_memory_estimate() -> None:
    data = split(10)
    assert resident_bytes(data, AugmentConfig()) == 10 * 3 * 8 * 6
    assert resident_bytes(data, AUGMENT) == 10 * 3 * 12 * 10 * 2
    stored = resident.ResidentImages(data, AUGMENT, CPU).stored
    assert stored.numel() == resident_bytes(data, AUGMENT)


def test_auto_keeps_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    data = split(10)
    needed = resident_bytes(data, AUGMENT)
    assert choose_resident(data, AUGMENT, CPU)
    for free, expected in ((2 * needed + 2, True), (2 * needed, False), (None, True)):
        monkeypatch.setattr(resident, "free_bytes", lambda _, free=free: free)
        assert choose_resident(data, AUGMENT, CPU, "auto") is expected
        assert train(data).resident is expected
    monkeypatch.setattr(resident, "LARGEST_BYTES", needed)
    assert not choose_resident(data, AUGMENT, CPU, "auto")
    assert choose_resident(data, AUGMENT, CPU, True)
    assert choose_resident(data, AUGMENT, CPU, "true")
    assert not choose_resident(data, AugmentConfig(), CPU, "false")


def test_free_memory_is_known_here() -> None:
    free = resident.free_bytes(CPU)
    assert free is None or free > 2**20


@pytest.mark.gpu
@pytest.mark.parametrize("keep", [True, False])
def test_a_gpu_sees_the_same_batches(keep: bool) -> None:
    on_gpu = [
        Batch(b.images.cpu(), b.targets.cpu(), b.index.cpu())
        for b in train(device="cuda", resident=keep).epoch(1)
    ]
    assert all_same(on_gpu, list(train().epoch(1)))


def test_indices_are_sent_to_the_device_in_batches() -> None:
    batches = torch.arange(10).split(4)
    assert [part.tolist() for part in loaders._on_device(batches, CPU)] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]
