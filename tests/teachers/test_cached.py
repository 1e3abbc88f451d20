"""A cached teacher gives the same outputs as the teacher, whatever its file held before."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdrun.config.augment import AugmentConfig, MixConfig
from kdrun.data.augment.crops import Crops
from kdrun.data.augment.views import ImageViews, Plan, joined, teacher_plan
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.data.loaders.partners import PairedLoader
from kdrun.data.loaders.repeated import RepeatedLoader
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import Objective
from kdrun.models.features.taps import FeatureExtractor
from kdrun.models.resnet import ResNet
from kdrun.schemes.offline import Offline
from kdrun.teachers import cached
from kdrun.teachers.cache_file import CacheFile
from kdrun.teachers.cached import CachedTeacher, slots_of
from kdrun.types import Normalisation, Outputs, to_device

AUGMENT = AugmentConfig(crop_padding=1, flip=True)
CPU = torch.device("cpu")
IMAGES, BATCH, CLASSES = 150, 64, 5
PLAN = Plan(AUGMENT, 0, IMAGES)


class Counting(nn.Module):
    """A teacher that counts its calls and images."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.extractor = FeatureExtractor(
            ResNet(CLASSES, depth=8, widths=[4, 4, 8, 8]).eval(), embedding=True
        )
        self.requires_grad_(False)
        self.seen: list[int] = []

    def forward(self, images: Tensor) -> Outputs:
        self.seen.append(len(images))
        outputs: Outputs = self.extractor(images)
        return outputs


def loader(seed: int = 0, **changes: object) -> TrainLoader:
    pixels = torch.randint(256, (IMAGES, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    split = Split(pixels.to(torch.uint8), torch.arange(IMAGES) % CLASSES)
    constants = Normalisation((0.5,) * 3, (0.2,) * 3)
    settings: dict = {"resident": True, "memory_format": torch.channels_last, **changes}
    augment = settings.pop("augment", AUGMENT)
    return TrainLoader(split, constants, BATCH, augment, seed, CPU, **settings)


def teacher(path: Path, **changes: object) -> CachedTeacher:
    widths = changes.pop("widths", (CLASSES, 0))
    dtype = changes.pop("dtype", torch.float32)
    storable = int(changes.pop("storable", IMAGES))  # type: ignore[call-overload]
    plan: Plan = changes.pop("plan", PLAN)  # type: ignore[assignment]
    name = cached.STORED[dtype][0]  # type: ignore[index]
    file = CacheFile(path / "r.bin", storable * plan.view_count, sum(widths), name)  # type: ignore[call-overload,operator]
    return CachedTeacher(
        Counting(),
        file,
        storable,
        plan,
        dtype,
        widths,
        CPU,
        **changes,  # type: ignore[arg-type]
    )


def epoch(one: CachedTeacher, source: TrainLoader, number: int = 0, first: int = 0) -> Tensor:
    """The logits of all batches of an epoch, in order."""
    return torch.cat([one(b.images, b.keys).logits for b in source.epoch(number, first)])


def all_slots(source: TrainLoader, number: int) -> np.ndarray:
    return slots_of(source.views(number).select(torch.arange(IMAGES)), PLAN)


def direct(source: TrainLoader, number: int = 0) -> Tensor:
    plain = Counting()
    return torch.cat([plain(batch.images).logits for batch in source.epoch(number)])


def test_every_view_has_its_own_record() -> None:
    places = range(3)
    grid = torch.tensor([(y, x, f) for y in places for x in places for f in (0, 1)])
    for augment, count in ((AUGMENT, 18), (AugmentConfig(1, False), 9), (AugmentConfig(), 1)):
        assert replace(PLAN, augment=augment).view_count == count
    found = []
    for image in range(4):
        chosen = ImageViews(0, torch.full((18,), image), Crops(*grid.T))
        found += slots_of(chosen, PLAN).tolist()
    assert sorted(found) == list(range(4 * 18))


def test_found_or_computed_the_outputs_are_the_teachers(tmp_path: Path) -> None:
    first, source = teacher(tmp_path), loader()
    for number in (0, 1):
        torch.testing.assert_close(epoch(first, source, number), direct(source, number))
    again = teacher(tmp_path)
    for number in (0, 1):
        torch.testing.assert_close(epoch(again, source, number), direct(source, number))
    assert again.teacher.seen == []
    assert again.counts.share() == 100.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_the_file_held_makes_no_difference(tmp_path: Path, dtype: torch.dtype) -> None:
    source = loader()
    reference = [epoch(teacher(tmp_path / "a", dtype=dtype), source, n) for n in (0, 1)]
    other = teacher(tmp_path / "b", dtype=dtype)
    epoch(other, loader(seed=9))  # another seed's views, in another order
    epoch(other, source, 1, first=1)  # and a part of an epoch
    for number in (0, 1):
        assert torch.equal(
            epoch(teacher(tmp_path / "b", dtype=dtype), source, number), reference[number]
        )
        assert torch.equal(epoch(other, source, number), reference[number])


def test_the_teacher_only_sees_whole_chunks_and_nothing_twice(tmp_path: Path) -> None:
    one, source = teacher(tmp_path), loader()
    epoch(one, source)
    assert set(one.teacher.seen) == {cached.CHUNK["cpu"]}
    distinct = np.unique(all_slots(source, 0))
    assert one.counts.images == IMAGES
    assert one.counts.computed == len(distinct) == IMAGES
    partly = all_slots(source, 1)
    held = one.file.read(partly)[1].sum()
    epoch(one, source, 1)
    assert one.counts.computed == 2 * IMAGES - held


def test_later_batches_fill_up_a_chunk(tmp_path: Path) -> None:
    """Half of the first batch is known: the teacher is asked for it and for half of the second."""
    one, source = teacher(tmp_path), loader()
    index = source.order(0)[: BATCH // 2]
    seen = source.views(0).select(index)
    outputs = one.teacher(source.images(index, seen))
    one.file.write(slots_of(seen, PLAN), outputs.logits.numpy())
    one.teacher.seen.clear()
    assert torch.allclose(epoch(one, source), direct(source), atol=1e-5)
    whole = -(-(IMAGES - BATCH // 2) // cached.CHUNK["cpu"])
    assert len(one.teacher.seen) == whole


def test_streamed_images_give_the_same(tmp_path: Path) -> None:
    resident = epoch(teacher(tmp_path / "a"), loader())
    streamed = epoch(teacher(tmp_path / "b"), loader(resident=False))
    assert torch.equal(resident, streamed)


def test_images_without_room_are_computed_every_time(tmp_path: Path) -> None:
    source = loader()
    bounded = teacher(tmp_path / "a", storable=40)
    found = [epoch(bounded, source), epoch(bounded, source)]
    assert torch.equal(*found)
    assert torch.equal(found[0], epoch(teacher(tmp_path / "b"), source))
    assert bounded.counts.computed == IMAGES + (IMAGES - 40)


def test_images_without_room_fill_whole_chunks_too(tmp_path: Path) -> None:
    source = loader()
    epoch(teacher(tmp_path, storable=110), source)
    bounded = teacher(tmp_path, storable=110)
    epoch(bounded, source)  # 40 of 150 images have no room: one chunk
    assert bounded.teacher.seen == [64]
    assert bounded.counts.computed == 40


def test_other_images_are_never_looked_up(tmp_path: Path) -> None:
    one, source = teacher(tmp_path), loader()
    epoch(one, source)
    for batch in source.epoch(0):
        changed = batch.images + 1.0
        for keys in (None, batch.keys):  # a scheme that changes images may leave the old keys
            assert torch.equal(one(changed, keys).logits, Counting()(changed).logits)
    assert one.counts.images == IMAGES


@pytest.mark.parametrize(
    "copied",
    [Tensor.contiguous, Tensor.clone, lambda images: images.to(images.dtype, copy=True)],
    ids=["contiguous", "clone", "to"],
)
@pytest.mark.parametrize("paired", [False, True])
def test_copied_images_find_their_records(
    tmp_path: Path, copied: Callable[[Tensor], Tensor], paired: bool
) -> None:
    source = loader()
    expected = epoch(teacher(tmp_path), source)
    again = teacher(tmp_path)
    scheme = Offline(Counting().extractor, [again], Objective(CrossEntropy(), 1.0, {}))
    found = []
    for batch in (PairedLoader(source) if paired else source).epoch(0):
        copy = copied(batch.images)
        assert copy is not batch.images
        (outputs,) = scheme.teacher_outputs(replace(batch, images=copy))
        found.append(outputs.logits)
    assert torch.equal(torch.cat(found), expected)
    assert again.teacher.seen == []
    assert again.counts.share() == 100.0


def test_what_a_copy_leaves_in_the_file_is_what_the_batch_leaves(tmp_path: Path) -> None:
    source = loader()
    one, other = teacher(tmp_path / "a"), teacher(tmp_path / "b")
    epoch(one, source)
    for batch in source.epoch(0):
        other(batch.images.contiguous(), batch.keys)
    slots = all_slots(source, 0)
    for values, copies in zip(one.file.read(slots), other.file.read(slots), strict=True):
        assert np.array_equal(values, copies)


def test_a_part_of_a_batch_is_not_looked_up(tmp_path: Path) -> None:
    one, source = teacher(tmp_path), loader()
    epoch(one, source)
    batch = next(source.epoch(0))
    half = batch.images[: BATCH // 2]
    assert torch.equal(one(half, batch.keys).logits, Counting()(half).logits)
    assert one.counts.images == IMAGES


def test_a_moved_batch_keeps_its_keys(tmp_path: Path) -> None:
    one, source = teacher(tmp_path), loader()
    expected = epoch(one, source)
    moved = [to_device(batch, CPU) for batch in source.epoch(0)]
    assert torch.equal(torch.cat([one(b.images, b.keys).logits for b in moved]), expected)
    assert one.counts.images == 2 * IMAGES


def test_batches_of_other_sizes_are_not_cached_where_that_would_change_them(
    tmp_path: Path,
) -> None:
    one, source = teacher(tmp_path, sizes={BATCH}), loader()
    epoch(one, source)
    assert one.counts.images == 2 * BATCH
    assert IMAGES - 2 * BATCH in one.teacher.seen


def test_the_embedding_is_kept_too(tmp_path: Path) -> None:
    one, source = teacher(tmp_path, widths=(CLASSES, 8)), loader()
    plain = Counting()
    for number in (0, 0):
        for batch in source.epoch(number):
            found, expected = one(batch.images, batch.keys), plain(batch.images)
            torch.testing.assert_close(found.embedding, expected.embedding)
            torch.testing.assert_close(found.logits, expected.logits)


def test_a_disk_that_is_full_is_said_once_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, said = loader(), []
    expected = epoch(teacher(tmp_path / "a"), source)
    one = teacher(tmp_path / "b", warn=said.append)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdrun.teachers.cache_file.os.pwrite", full)
    assert torch.equal(epoch(one, source), expected)
    assert torch.equal(epoch(one, source), expected)
    assert len(said) == 1
    assert "No space left" in said[0]


def test_bf16_outputs_keep_their_bits(tmp_path: Path) -> None:
    source = loader()
    one = teacher(tmp_path, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        first = epoch(one, source)
        again = epoch(teacher(tmp_path, dtype=torch.bfloat16), source)
    assert first.dtype == torch.bfloat16
    assert torch.equal(first, again)


@pytest.mark.parametrize("view", ["same", "weak", "fixed", "independent", "mixed"])
def test_views_of_a_cycle_are_found_bit_for_bit(tmp_path: Path, view: str) -> None:
    """Random augmentation with a cycle: after its last epoch the teacher is not run again."""
    mixup, seen = MixConfig(0.8 * (view == "mixed"), 0.7), view.replace("mixed", "same")
    augment = AugmentConfig(1, True, policy="randaugment", mixup=mixup, cycle=2, teacher_view=seen)
    source = loader(augment=augment)
    plan = source.teacher.plan
    first, plain = teacher(tmp_path, plan=plan), Counting()
    for number in (0, 1, 2, 3):
        for batch in source.epoch(number):
            found = first(batch.for_teacher, batch.keys).logits
            torch.testing.assert_close(found, plain(batch.for_teacher).logits)
    assert first.counts.computed == IMAGES * (1 if view == "fixed" else 2)
    for keep in (True, False):
        again = teacher(tmp_path, plan=plan)
        for number in (4, 7):
            for batch in loader(augment=augment, resident=keep).epoch(number):
                one = again(batch.for_teacher, batch.keys).logits
                assert torch.equal(one, first(batch.for_teacher, batch.keys).logits)
        assert again.teacher.seen == []


def test_what_a_record_depends_on_is_part_of_the_key() -> None:
    base = AugmentConfig(1, True, policy="randaugment", cycle=2)
    plans = [
        Plan(AugmentConfig(1, True), 0, IMAGES),
        Plan(base, 0, IMAGES),
        Plan(base, 1, IMAGES),
        Plan(base, 0, IMAGES - 1),
        Plan(replace(base, cycle=3), 0, IMAGES),
        Plan(replace(base, magnitude=8), 0, IMAGES),
        Plan(replace(base, mixup=replace(base.mixup, alpha=0.2)), 0, IMAGES),
        teacher_plan(Plan(replace(base, teacher_view="weak"), 0, IMAGES)),
        teacher_plan(Plan(replace(base, teacher_view="fixed"), 0, IMAGES)),
        teacher_plan(Plan(replace(base, teacher_view="independent"), 0, IMAGES)),
    ]
    assert len({repr(plan.identity()) for plan in plans}) == len(plans)
    assert plans[0].identity() == {"augment": {"crop_padding": 1, "flip": True}}
    same = teacher_plan(Plan(replace(base, strong="randaugment"), 0, IMAGES))
    assert same.identity() == plans[1].identity()
    assert Plan(replace(base, cycle=None), 0, IMAGES).view_count is None


@pytest.mark.parametrize(
    ("augment", "repeats"),
    [
        (AUGMENT, 3),
        (replace(AUGMENT, cycle=2), 3),  # two of three views are equal
        (AugmentConfig(policy="randaugment", cycle=5, mixup=MixConfig(0.8)), 2),
        (replace(AUGMENT, teacher_view="fixed"), 3),
    ],
    ids=["crop_flip", "short cycle", "mixed", "fixed"],
)
@pytest.mark.parametrize("storable", [IMAGES, 60])
def test_repeated_images_have_the_records_of_the_epochs_whose_views_they_show(
    tmp_path: Path, augment: AugmentConfig, repeats: int, storable: int
) -> None:
    source = RepeatedLoader(loader(augment=augment), repeats)
    plan = source.teacher.plan

    def outputs(one: CachedTeacher, number: int) -> Tensor:
        batches = source.epoch(number)
        return torch.cat([one(batch.for_teacher, batch.keys).logits for batch in batches])

    first = [outputs(teacher(tmp_path, plan=plan, storable=storable), n) for n in (0, 1)]
    again = teacher(tmp_path, plan=plan, storable=storable)
    for number in (0, 1):
        assert torch.equal(outputs(again, number), first[number])
        plain = torch.cat([Counting()(batch.for_teacher).logits for batch in source.epoch(number)])
        torch.testing.assert_close(first[number], plain)
    if storable == IMAGES:
        assert again.teacher.seen == []
        assert again.counts.share() == 100.0

    alone, usual = loader(augment=augment), teacher(tmp_path / "usual", plan=plan)
    for number in (0, 1):
        by_epoch = {}
        for epoch_of_view in range(number * repeats, (number + 1) * repeats):
            logits = torch.cat(
                [usual(b.for_teacher, b.keys).logits for b in alone.epoch(epoch_of_view)]
            )
            by_epoch[epoch_of_view] = dict(
                zip(alone.order(epoch_of_view).tolist(), logits, strict=True)
            )
        shown = joined(source.shown(number))
        pairs = zip(shown.index.tolist(), shown.epochs.tolist(), strict=True)
        expected = torch.stack([by_epoch[e][image] for image, e in pairs])
        assert torch.equal(first[number], expected)
