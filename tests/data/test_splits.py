"""Held-out images: proportions per class, seeds, and what cannot be held out."""

import pytest
import torch

from kdrun.data.images import RawDataset, Split
from kdrun.data.splits import hold_out, hold_out_test, stratified
from kdrun.errors import ConfigError, DataError


def counts(targets: torch.Tensor, index: torch.Tensor) -> list[int]:
    return torch.bincount(targets[index], minlength=int(targets.max()) + 1).tolist()


def test_every_class_gives_its_rounded_share() -> None:
    targets = torch.tensor([0] * 100 + [1] * 25 + [2] * 14 + [3] * 6)
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))]
    kept, held = stratified(targets, 0.1, 0, "validation")
    assert counts(targets, held) == [10, 3, 1, 1]
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(len(targets)))
    assert torch.equal(kept, kept.sort().values)
    assert torch.equal(held, held.sort().values)


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_small_classes_keep_one_and_give_one(fraction: float) -> None:
    targets = torch.tensor([0, 1, 1, 2, 2, 2])
    _, held = stratified(targets, fraction, 0, "validation")
    zero, one, two = counts(targets, held) if len(held) else [0, 0, 0]
    assert zero == 0
    assert one == 1
    assert 1 <= two <= 2


def test_no_fraction_holds_nothing_out() -> None:
    kept, held = stratified(torch.tensor([0, 0, 1, 1]), 0.0, 0, "validation")
    assert kept.tolist() == [0, 1, 2, 3]
    assert len(held) == 0


def test_seed_and_purpose_choose_the_images() -> None:
    targets = torch.arange(1000) % 10
    first = stratified(targets, 0.2, 0, "test")[1]
    assert torch.equal(first, stratified(targets, 0.2, 0, "test")[1])
    assert not torch.equal(first, stratified(targets, 0.2, 1, "test")[1])
    assert not torch.equal(first, stratified(targets, 0.2, 0, "validation")[1])


def raw(targets: list[int], fingerprint: str | None = None) -> RawDataset:
    images = torch.arange(len(targets), dtype=torch.uint8).view(-1, 1, 1, 1)
    return RawDataset(("a", "b"), Split(images, torch.tensor(targets)), fingerprint=fingerprint)


def test_held_out_test_images_leave_the_training_images() -> None:
    divided = hold_out_test(raw([0, 1] * 10), 0.2, 0)
    assert divided.test is not None
    together = torch.cat([divided.train.in_memory(), divided.test.in_memory()]).flatten()
    assert sorted(together.tolist()) == list(range(20))
    assert len(divided.test) == 4
    assert "20%" in divided.notes[0]


def test_a_known_fingerprint_also_says_which_images_were_held_out() -> None:
    known = [
        hold_out_test(raw([0, 1] * 10, "ab"), fraction, seed).fingerprint
        for fraction, seed in ((0.2, 0), (0.2, 1), (0.3, 0), (0.2, 0))
    ]
    assert known[0] == known[3]
    assert len(set(known)) == 3
    assert hold_out_test(raw([0, 1] * 10), 0.2, 0).fingerprint is None


def test_one_image_per_class_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="one image per class"):
        hold_out_test(raw([0, 1]), 0.2, 0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_test_fraction_leaves_images_on_both_sides(fraction: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        hold_out_test(raw([0, 1] * 10), fraction, 0)


def test_whole_groups_are_held_out_class_by_class() -> None:
    index = torch.randperm(120, generator=torch.Generator().manual_seed(0)) % 30
    targets = index % 3  # ten groups of four images in each class
    split = Split(torch.zeros(120, 1, 2, 2), targets, index + 7)
    kept, held = hold_out(split, 0.2, 0, "validation")
    assert torch.equal(torch.cat([kept, held]).sort().values, torch.arange(120))
    assert not set(index[kept].tolist()) & set(index[held].tolist())
    for label in range(3):
        assert len(index[held][targets[held] == label].unique()) == 2


def test_without_groups_it_is_the_stratified_draw() -> None:
    split = Split(torch.zeros(40, 1, 2, 2), torch.arange(40) % 4)
    found, expected = hold_out(split, 0.2, 5, "test"), stratified(split.targets, 0.2, 5, "test")
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
