"""Mixup and CutMix: equal to timm's at fixed parameters, pure functions of image and epoch."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kdrun.config.augment import AugmentConfig, MixConfig
from kdrun.config.augment_rules import augment as check
from kdrun.data.augment.mixing import Mixing, corrected_share, cutmix_box, draw_mixing, mix
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.errors import ConfigError
from kdrun.types import Batch, Mixture, Normalisation
from kdrun.world import World

COUNT, BATCH, SIZE = 43, 16, (9, 10)
BOTH = AugmentConfig(mixup=MixConfig(0.8, 0.7), cutmix=MixConfig(1.0, 0.7))


@pytest.fixture(scope="module")
def timm_mixup() -> ModuleType:
    """timm's file by itself: importing the package takes seconds."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        pytest.skip("timm is not installed")
    path = Path(found.origin).parent / "data" / "mixup.py"
    spec = importlib.util.spec_from_file_location("timm_mixup", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_that_of_timm_at_fixed_shares_boxes_and_partners(
    timm_mixup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    images, share = torch.randn(40, 3, *SIZE), draw.random(40, dtype=np.float32)
    share[3], share[5] = 1.0, 0.0
    cut = draw.random(40) < 0.5
    centre = np.stack([draw.integers(side, size=40) for side in SIZE], axis=1)
    numbers = iter(centre[cut & (share != 1)].flatten())
    theirs = timm_mixup.Mixup(mixup_alpha=1.0, cutmix_alpha=1.0, mode="elem", num_classes=5)
    monkeypatch.setattr(theirs, "_params_per_elem", lambda size: (share.copy(), cut))
    monkeypatch.setattr(timm_mixup.np.random, "randint", lambda *_, **__: next(numbers))
    expected = images.clone()
    expected_share = theirs._mix_elem(expected)[:, 0]
    sides, ours, pasted = torch.tensor(SIZE), torch.from_numpy(share), torch.from_numpy(cut)
    box = cutmix_box(ours, torch.from_numpy(centre), sides)
    ours = torch.where(pasted, corrected_share(box, sides), ours)
    mixing = Mixing(torch.arange(40).flip(0), ours, box, pasted)
    assert torch.equal(mix(images, images.flip(0), mixing), expected)
    assert torch.equal(ours, expected_share)


def test_draws_follow_the_settings() -> None:
    index, size = torch.arange(20_000), torch.tensor([64, 64])

    def draw(augment: AugmentConfig, epoch: int = 0) -> Mixing:
        return draw_mixing(augment, 5, epoch, index, len(index), size)

    both = draw(replace(BOTH, switch_prob=0.3))
    assert not bool((both.partner == index).any())
    assert torch.bincount(both.partner, minlength=20_000).max() < 12
    assert float(both.cut.double().mean()) == pytest.approx(0.3, abs=0.02)
    mixed = both.share < 1
    for kind in (both.cut, ~both.cut):
        assert float(mixed[kind].double().mean()) == pytest.approx(0.7, abs=0.02)
    share = draw(AugmentConfig(mixup=MixConfig(0.2))).share.double()
    assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(share.var()) == pytest.approx(1 / (4 * 1.4), abs=0.005)  # of Beta(0.2, 0.2)
    assert not bool(draw(AugmentConfig(mixup=MixConfig(0.2))).cut.any())
    assert bool(draw(AugmentConfig(cutmix=MixConfig(1.0))).cut.all())
    assert not torch.equal(draw(BOTH, 1).partner, both.partner)
    some = draw_mixing(BOTH, 5, 0, index[7:9], len(index), size)
    assert torch.equal(some.share, draw(BOTH).share[7:9])


def loader(augment: AugmentConfig, **settings: Any) -> TrainLoader:
    """Image i has the value i everywhere."""
    pixels = torch.arange(COUNT).view(-1, 1, 1, 1).expand(COUNT, 1, *SIZE).to(torch.uint8)
    split = Split(pixels.contiguous(), torch.arange(COUNT) // 2)
    constants = Normalisation((0.0,), (1 / 255,))
    return TrainLoader(split, constants, BATCH, augment, 3, "cpu", **settings)


def parts(batch: Batch) -> tuple[Tensor, Mixture]:
    assert batch.mixture is not None
    return batch.images, batch.mixture


@pytest.mark.parametrize("keep", [True, False])
def test_second_labels_and_shares_are_those_of_the_images(keep: bool) -> None:
    mixup = AugmentConfig(mixup=MixConfig(1.0))
    for batch in loader(mixup, resident=keep).epoch(0):
        images, mixture = parts(batch)
        share = mixture.share.double()
        value = images[:, 0, 0, 0].double()
        partner = (value - share * batch.index) / (1 - share)
        far = share < 0.9  # elsewhere float32 has too few digits
        assert torch.equal(partner.round().long()[far] // 2, mixture.targets[far])
    cutmix = AugmentConfig(cutmix=MixConfig(1.0))
    for batch in loader(cutmix, resident=keep).epoch(0):
        images, mixture = parts(batch)
        own = images[:, 0] == batch.index.view(-1, 1, 1)
        torch.testing.assert_close(own.float().mean(dim=(1, 2)), mixture.share)
        partner = torch.where(own, 0, images[:, 0]).flatten(1).amax(1)
        assert torch.equal((partner // 2)[mixture.share < 1], mixture.targets[mixture.share < 1])


def same(one: Batch, other: Batch) -> bool:
    pairs = zip(parts(one)[1].__dict__.values(), parts(other)[1].__dict__.values(), strict=True)
    return torch.equal(one.images, other.images) and all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("keep", [True, False])
def test_mixtures_repeat_with_the_cycle_and_continue_after_a_resume(keep: bool) -> None:
    whole = list(loader(replace(BOTH, cycle=2)).epoch(3))
    again = list(loader(replace(BOTH, cycle=2), resident=keep).epoch(3, 1))
    assert all(same(one, other) for one, other in zip(whole[1:], again, strict=True))
    (first,) = loader(BOTH).take((torch.arange(COUNT),), 1)
    (third,) = loader(replace(BOTH, cycle=2), resident=keep).take((torch.arange(COUNT),), 3)
    assert same(first, third)


@pytest.mark.parametrize("keep", [True, False])
def test_processes_share_the_images_and_have_all_labels(keep: bool) -> None:
    whole = list(loader(BOTH).epoch(0))
    ranks = [loader(BOTH, resident=keep, world=World(rank, 2)).epoch(0) for rank in (0, 1)]
    for one, first, second in zip(whole, *ranks, strict=True):
        together = replace(first, images=torch.cat((first.images, second.images)))
        assert same(one, together)
        assert same(one, replace(together, mixture=second.mixture))


def test_every_view_of_a_batch_has_the_same_mixture() -> None:
    made = loader(replace(BOTH, teacher_view="weak", strong="three_augment"))
    assert made.strong is not None
    index = torch.arange(COUNT)
    mixings = [each.mixing(2, index) for each in (made.student, made.teacher, made.strong)]
    first, *others = (vars(mixing) for mixing in mixings)
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    assert all(batch.strong_images is not None for batch in made.epoch(2))


def test_without_mixing_there_is_no_second_label() -> None:
    assert next(loader(AugmentConfig()).epoch(0)).mixture is None
    (alone,) = loader(replace(BOTH, cutmix=MixConfig())).take((torch.tensor([4]),), 0)
    assert parts(alone)[1].share.shape == (1,)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (AugmentConfig(mixup=MixConfig(0.0, 0.5)), r"a\.mixup\.prob=0\.5 has no effect without"),
        (AugmentConfig(mixup=MixConfig(0.2), switch_prob=0.3), r"a\.switch_prob=0\.3 has no eff"),
        (AugmentConfig(cutmix=MixConfig(-1.0)), r"a\.cutmix\.alpha=-1"),
        (AugmentConfig(mixup=MixConfig(0.2, 1.5)), r"a\.mixup\.prob=1\.5"),
    ],
)
def test_settings_without_effect_are_refused(config: AugmentConfig, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        check("a", config, has_teacher=True)
