"""Training batches under each policy: pure functions of image and epoch, the same for everyone."""

import hashlib
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig, ErasingConfig, JitterConfig, MixConfig
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.data.loaders.strong_view import strong_view_of
from kdrun.errors import ConfigError
from kdrun.types import Batch, Normalisation

POLICIES = {
    "imagenet": AugmentConfig(
        flip=True, crop="resized", color_jitter=JitterConfig(0.4, 0.4, 0.4, 0.1)
    ),
    "randaugment": AugmentConfig(2, True, policy="randaugment"),
    "timm": AugmentConfig(policy="timm_randaugment", magnitude_std=0.5, interpolation="random"),
    "autoaugment": AugmentConfig(2, True, policy="autoaugment"),
    "trivialaugment": AugmentConfig(policy="trivialaugment"),
    "three_augment": AugmentConfig(
        2, True, padding_mode="reflect", policy="three_augment", color_jitter=JitterConfig(0.3)
    ),
    "erasing": AugmentConfig(erasing=ErasingConfig(prob=0.5)),
    "erasing colour": AugmentConfig(erasing=ErasingConfig(prob=0.5, mode="rand")),
    "mixup": AugmentConfig(2, True, mixup=MixConfig(0.4, 0.7)),
    "mixing": AugmentConfig(
        flip=True, crop="resized", mixup=MixConfig(0.8), cutmix=MixConfig(1.0), switch_prob=0.4
    ),
    "erasing noise": AugmentConfig(erasing=ErasingConfig(prob=0.5, mode="pixel")),
}
COUNT, BATCH = 43, 16
each_policy = pytest.mark.parametrize("name", POLICIES)


def split(channels: int = 3) -> Split:
    pixels = torch.randint(
        256, (COUNT, channels, 9, 10), generator=torch.Generator().manual_seed(0)
    )
    return Split(pixels.to(torch.uint8), torch.arange(COUNT) % 5)


def loader(augment: AugmentConfig, seed: int = 3, channels: int = 3, **more: object) -> TrainLoader:
    constants = Normalisation((0.4,) * channels, (0.2,) * channels)
    data = more.pop("data", split(channels))
    settings: dict = {"resident": True, **more}
    return TrainLoader(data, constants, BATCH, augment, seed, "cpu", **settings)  # type: ignore[arg-type]


def by_image(batches: list[Batch]) -> Tensor:
    """The images of an epoch in the order of the split."""
    images = torch.cat([batch.images for batch in batches])
    return images[torch.cat([batch.index for batch in batches]).argsort()]


@each_policy
def test_how_images_are_read_makes_no_difference(name: str) -> None:
    resident, streamed = (loader(POLICIES[name], resident=keep) for keep in (True, False))
    for epoch in (0, 1):
        batches = list(resident.epoch(epoch))
        for one, other in zip(batches, streamed.epoch(epoch), strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.index, other.index)
        everything = torch.arange(COUNT)
        seen = resident.views(epoch).select(everything)
        assert torch.equal(by_image(batches), resident.images(everything, seen))


def test_worker_processes_make_no_difference() -> None:
    augment = replace(POLICIES["randaugment"], erasing=ErasingConfig(prob=0.5, mode="pixel"))
    streamed = loader(augment, resident=False, workers=2)
    for one, other in zip(streamed.epoch(1, 1), loader(augment).epoch(1, 1), strict=True):
        assert torch.equal(one.images, other.images)


@each_policy
def test_a_resumed_epoch_continues_bit_for_bit(name: str) -> None:
    for keep in (True, False):
        whole = list(loader(POLICIES[name]).epoch(4))
        torch.rand(7)  # the global generator is elsewhere after a resume
        for one, other in zip(
            whole[1:], loader(POLICIES[name], resident=keep).epoch(4, 1), strict=True
        ):
            assert torch.equal(one.images, other.images)


@each_policy
def test_the_augmentation_of_an_image_repeats_after_a_cycle(name: str) -> None:
    cycled = loader(replace(POLICIES[name], cycle=2))
    plain = loader(POLICIES[name])
    epochs = [by_image(list(cycled.epoch(epoch))) for epoch in range(3)]
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(epochs[1], by_image(list(plain.epoch(1))))
    assert not torch.equal(epochs[2], by_image(list(plain.epoch(2))))
    order = [next(cycled.epoch(epoch)).index for epoch in (0, 2)]
    assert not torch.equal(*order)


@each_policy
def test_grey_images_and_seeds(name: str) -> None:
    grey = loader(POLICIES[name], channels=1)
    images = by_image(list(grey.epoch(0)))
    assert bool(images.isfinite().all())
    assert not torch.equal(images, by_image(list(loader(POLICIES[name], 4, 1).epoch(0))))


@each_policy
def test_the_stored_images_stay_as_they_are(name: str) -> None:
    data = split()
    before = data.in_memory().clone()
    for keep in (True, False):
        one = loader(POLICIES[name], data=data, resident=keep)
        first = by_image(list(one.epoch(0)))
        assert torch.equal(first, by_image(list(one.epoch(0))))
    assert torch.equal(data.in_memory(), before)


@each_policy
def test_teacher_and_student_receive_the_same_pixels(name: str) -> None:
    hashes = [
        [hashlib.sha256(images.numpy().tobytes()).hexdigest() for images in pair]
        for epoch in (0, 1)
        for pair in (
            (batch.images, batch.for_teacher) for batch in loader(POLICIES[name]).epoch(epoch)
        )
    ]
    assert all(student == teacher for student, teacher in hashes)
    assert len({student for student, _ in hashes}) == len(hashes)


def test_views_of_the_teacher() -> None:
    augment = replace(POLICIES["randaugment"], erasing=ErasingConfig(prob=0.5), cycle=3)
    plain = loader(AugmentConfig(2, True, cycle=3))
    centred = loader(AugmentConfig())
    batches = {
        view: list(loader(replace(augment, teacher_view=view)).epoch(4))
        for view in ("same", "weak", "fixed", "independent")
    }
    students = [by_image(found) for found in batches.values()]
    assert all(torch.equal(one, students[0]) for one in students)
    for view, found in batches.items():
        teacher = by_image([replace(batch, images=batch.for_teacher) for batch in found])
        expected = {
            "same": students[0],
            "weak": by_image(list(plain.epoch(4))),
            "fixed": by_image(list(centred.epoch(0))),
        }.get(view)
        if expected is None:
            assert not torch.equal(teacher, students[0])
        else:
            assert torch.equal(teacher, expected)


def test_the_strong_view_has_the_crop_of_the_first_and_its_own_policy() -> None:
    augment = AugmentConfig(2, True, policy="randaugment", cycle=2)
    plain = list(loader(augment).epoch(3))
    both = list(loader(replace(augment, strong="randaugment")).epoch(3))
    weak = list(loader(replace(augment, strong="none")).epoch(3))
    cropped = list(loader(AugmentConfig(2, True)).epoch(1))
    streamed = loader(replace(augment, strong="randaugment"), resident=False)
    for one, two, crop, other in zip(plain, both, weak, streamed.epoch(3), strict=True):
        assert torch.equal(one.images, two.images)
        assert not torch.equal(two.images, two.strong_images)
        assert torch.equal(two.strong_images, other.strong_images)
        assert one.strong_images is None
        assert torch.equal(strong_view_of(two), two.strong_images)
        assert crop.strong_images.shape == one.images.shape
    images = [replace(batch, images=batch.strong_images) for batch in weak]
    assert torch.equal(by_image(images), by_image(cropped))


def test_erasing_leaves_the_mean_colour() -> None:
    plain, erased = (
        by_image(list(loader(AugmentConfig(erasing=ErasingConfig(prob=prob))).epoch(0)))
        for prob in (0.0, 1.0)
    )
    changed = (plain != erased).any(1)
    assert bool((erased.movedim(1, -1)[changed] == 0).all())
    assert float(changed.flatten(1).any(1).float().mean()) > 0.9


@pytest.mark.parametrize("name", ["imagenet", "randaugment"])
def test_values_that_are_no_pixels_are_refused(name: str) -> None:
    data = Split(torch.rand(COUNT, 1, 8, 8), torch.arange(COUNT) % 5)
    with pytest.raises(ConfigError, match=r"changes 8-bit pixels.*float32 values: leave it out"):
        loader(POLICIES[name], channels=1, data=data)
    cropped = AugmentConfig(flip=True, crop="resized", erasing=ErasingConfig(prob=1.0))
    images = by_image(list(loader(cropped, channels=1, data=data).epoch(0)))
    assert images.shape[1:] == (1, 8, 8)
