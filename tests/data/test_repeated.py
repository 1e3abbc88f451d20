"""Repeated augmentation: which images an epoch has, in which views, in one or more processes."""

from dataclasses import replace

import pytest
import torch
from data.test_loaders import AUGMENT, all_same, split, train
from torch import Tensor

from kdrun.config.augment import MixConfig
from kdrun.data.loaders.repeated import RepeatedLoader
from kdrun.types import Batch
from kdrun.world import World

MIXED = replace(AUGMENT, mixup=MixConfig(0.4))


def repeated(repeats: int = 3, world: World = World(), **changes: object) -> RepeatedLoader:  # noqa: B008
    return RepeatedLoader(train(**changes), repeats, world)  # type: ignore[arg-type]


def joined(batches: list[Batch], name: str) -> Tensor:
    return torch.cat([getattr(batch, name) for batch in batches])


def test_a_third_of_the_images_appears_three_times() -> None:
    loader = repeated()
    batches = list(loader.epoch(4))
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    index = joined(batches, "index")
    counts = index.bincount()
    assert sorted(counts[counts > 0].tolist()) == [2, *[3] * 16]  # 50 = 16 · 3 + 2
    assert set(index.tolist()) == set(loader.order(4)[:17].tolist())
    assert torch.equal(joined(batches, "targets"), split().targets[index])
    later = joined(list(loader.epoch(5)), "index")
    assert set(later.tolist()) != set(index.tolist())


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("augment", [AUGMENT, MIXED], ids=["crop_flip", "mixup"])
def test_each_view_is_the_one_of_an_epoch_without_repetition(keep: bool, augment: object) -> None:
    loader = repeated(resident=keep, augment=augment)
    plain = train(resident=keep, augment=augment)
    seen: dict[int, int] = {}
    for batch, parts in zip(loader.epoch(2), loader.parts(2), strict=True):
        expected = [
            plain.images(index, plain.views(2 * 3 + r).select(index))
            for r, index in enumerate(parts)
            if len(index)
        ]
        assert torch.equal(batch.images, torch.cat(expected))
        for r, index in enumerate(parts):
            for image in index.tolist():
                assert seen.get(image, -1) == r - 1  # first, second, third view
                seen[image] = r
    assert (batch.mixture is not None) == (augment is MIXED)


def test_cache_keys_name_what_a_batch_shows() -> None:
    loader = repeated()
    shown = loader.shown(2)
    assert len(shown) == loader.batches_per_epoch
    for number, batch in enumerate(loader.epoch(2, 1), 1):
        assert batch.keys is not None
        assert (batch.keys.loader, batch.keys.number) == (loader, number)
        assert batch.keys.images is batch.images
        assert torch.equal(shown[number].index, batch.index)
        images = torch.empty_like(batch.images)
        for epoch, rows in shown[number].by_epoch():
            index = batch.index[rows]
            images[rows] = loader.images(index, loader.views(epoch).select(index))
        assert torch.equal(images, batch.images)


def test_any_batch_can_be_asked_for_alone_and_streaming_changes_nothing() -> None:
    whole = list(repeated(resident=True).epoch(1))
    assert all_same(list(repeated(resident=False).epoch(1)), whole)
    assert all_same(list(repeated().epoch(1, 2)), whole[2:])
    assert not torch.equal(whole[0].images, next(repeated(seed=6).epoch(1)).images)


def test_a_cycle_limits_the_views() -> None:
    augment = replace(AUGMENT, cycle=2)
    loader, plain = repeated(augment=augment), train(augment=augment)
    first, _, third = loader.parts(0)[0]
    batch = next(loader.epoch(0))
    views = plain.views(0)
    assert torch.equal(batch.images[: len(first)], plain.images(first, views.select(first)))
    assert torch.equal(batch.images[-len(third) :], plain.images(third, views.select(third)))


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_every_batch(size: int) -> None:
    whole = list(repeated(augment=MIXED).epoch(0))
    ranks = [list(repeated(world=World(r, size), augment=MIXED).epoch(0)) for r in range(size)]
    for number, batch in enumerate(whole):
        shares = [rank[number] for rank in ranks]
        if len(batch) >= 2 * size:
            assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        for share in shares:
            assert torch.equal(share.targets, batch.targets)
            assert torch.equal(share.index, batch.index)
            assert share.mixture is not None
            assert batch.mixture is not None
            assert torch.equal(share.mixture.share, batch.mixture.share)
            assert torch.equal(share.mixture.targets, batch.mixture.targets)
