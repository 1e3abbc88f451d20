"""Partners of the same class: who they are, how they are seen, and that they can be asked again."""

import pytest
import torch
from torch import Tensor

from kdrun.config.schema import AugmentConfig
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.data.loaders.partners import PairedLoader, draw_partners
from kdrun.types import Normalisation

TARGETS = torch.tensor([0, 1, 0, 2, 1, 0, 0, 3, 1, 3] * 3 + [4])


def split() -> Split:
    draw = torch.Generator().manual_seed(0)
    count = len(TARGETS)
    images = torch.randint(256, (count, 1, 6, 6), generator=draw, dtype=torch.uint8)
    return Split(images, TARGETS)


def loader(resident: bool, augment: AugmentConfig) -> PairedLoader:
    constants = Normalisation((0.5,), (0.5,))
    plain = TrainLoader(split(), constants, 8, augment, 3, "cpu", resident=resident)
    return PairedLoader(plain)


def test_a_partner_is_another_image_of_the_class() -> None:
    for epoch in range(5):
        partner = draw_partners(TARGETS, 0, epoch)
        assert torch.equal(TARGETS[partner], TARGETS)
        alone = TARGETS == 4
        assert torch.equal(partner[alone], torch.arange(len(TARGETS))[alone])
        assert (partner[~alone] != torch.arange(len(TARGETS))[~alone]).all()


def test_partners_change_with_epoch_and_seed_alone() -> None:
    one = draw_partners(TARGETS, 0, 0)
    assert torch.equal(one, draw_partners(TARGETS, 0, 0))
    assert not torch.equal(one, draw_partners(TARGETS, 0, 1))
    assert not torch.equal(one, draw_partners(TARGETS, 1, 0))


def test_every_other_image_of_the_class_is_as_likely() -> None:
    targets = torch.zeros(4, dtype=torch.int64)
    draws = torch.stack([draw_partners(targets, 0, epoch) for epoch in range(3000)])
    counts = torch.stack([draws[:, i].bincount(minlength=4) for i in range(4)])
    assert (counts.diagonal() == 0).all()
    others = counts[~torch.eye(4, dtype=torch.bool)].double()
    assert ((others - 1000).abs() < 150).all()  # five standard deviations


@pytest.mark.parametrize("augment", [AugmentConfig(), AugmentConfig(2, True)])
def test_resident_and_streamed_batches_are_the_same_and_can_be_asked_again(
    augment: AugmentConfig,
) -> None:
    resident, streamed = loader(True, augment), loader(False, augment)
    whole = list(resident.epoch(2))
    assert len(whole) == resident.batches_per_epoch
    for one, two in zip(whole, streamed.epoch(2), strict=True):
        assert one.partner is not None
        assert two.partner is not None
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.partner, two.partner)
    again = list(resident.epoch(2, first_batch=2))
    assert torch.equal(partner_of(again[0]), partner_of(whole[2]))
    partner = draw_partners(TARGETS, 3, 2)
    assert torch.equal(
        torch.cat([batch.targets for batch in whole]),
        TARGETS[partner[torch.cat([batch.index for batch in whole])]],
    )


def test_the_batches_themselves_are_those_without_partners() -> None:
    paired = loader(True, AugmentConfig(1))
    for one, two in zip(paired.epoch(1), paired.loader.epoch(1), strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.index, two.index)
        assert two.partner is None


def partner_of(batch: object) -> Tensor:
    partner = batch.partner  # type: ignore[attr-defined]
    assert isinstance(partner, Tensor)
    return partner
