"""Crops and mirror images as integers, against plain slicing and torchvision."""

import pytest
import torch

from kdrun.config.schema import AugmentConfig
from kdrun.data.augment import crops
from kdrun.data.augment.crops import Crops
from kdrun.data.images import Split
from kdrun.data.loaders.resident import ResidentImages
from kdrun.vision import import_torchvision

AUGMENTS = [AugmentConfig(p, f) for p in (0, 1, 3) for f in (False, True)]


def pixels(count: int = 8) -> torch.Tensor:
    stream = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 3, 6, 5), generator=stream).to(torch.uint8)


def by_hand(image: torch.Tensor, dy: int, dx: int, flip: int, padding: int) -> torch.Tensor:
    """One view of `[C, H, W]` with torchvision's own pad, crop and mirror."""
    functional = import_torchvision().transforms.functional
    height, width = image.shape[1:]
    cut = functional.crop(functional.pad(image, [padding] * 4), dy, dx, height, width)
    return functional.hflip(cut) if flip else cut


@pytest.mark.parametrize("augment", AUGMENTS)
def test_every_view_equals_pad_crop_and_mirror(augment: AugmentConfig) -> None:
    images = pixels(4)
    places = range(2 * augment.crop_padding + 1)
    grid = [(y, x, f) for y in places for x in places for f in range(1 + augment.flip)]
    stored = ResidentImages(Split(images, torch.zeros(4).long()), augment, torch.device("cpu"))
    for dy, dx, flip in grid:
        expected = torch.stack([by_hand(i, dy, dx, flip, augment.crop_padding) for i in images])
        seen = Crops(*(torch.full((4,), value) for value in (dy, dx, flip)))
        assert torch.equal(crops.apply(images, seen, augment), expected)
        assert torch.equal(stored.take(torch.arange(4), seen), expected)


def test_views_are_a_function_of_seed_and_epoch() -> None:
    augment = AugmentConfig(4, True)
    first = crops.draw(500, augment, seed=3, epoch=7)
    again = crops.draw(500, augment, seed=3, epoch=7)
    for name in ("dy", "dx", "flip"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        for other in (crops.draw(500, augment, 3, 8), crops.draw(500, augment, 4, 7)):
            assert not torch.equal(getattr(first, name), getattr(other, name))


def test_all_places_are_drawn_equally_often() -> None:
    drawn = crops.draw(90_000, AugmentConfig(1, True), 0, 0)
    count = torch.bincount(drawn.dy * 6 + drawn.dx * 2 + drawn.flip, minlength=18)
    assert (count - 5000).abs().max() < 5 * 5000**0.5


def test_the_mirror_setting_does_not_move_the_crops() -> None:
    with_flip = crops.draw(50, AugmentConfig(2, True), 0, 0)
    without = crops.draw(50, AugmentConfig(2, False), 0, 0)
    assert torch.equal(with_flip.dx, without.dx)
    assert without.flip.sum() == 0


def test_no_augmentation_leaves_the_pixels() -> None:
    images = pixels()
    drawn = crops.draw(8, AugmentConfig(), 0, 0)
    assert torch.equal(crops.apply(images, drawn, AugmentConfig()), images)
