"""Which process this is, and which part of a batch is its own."""

import pytest
import torch

from kdrun.config.schema import AugmentConfig
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import EvalLoader, TrainLoader
from kdrun.types import Normalisation
from kdrun.world import ALONE, VARIABLES, World, world

GREY = Normalisation((0.5,), (0.25,))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("total", [1, 5, 14, 64, 101])
def test_shares_make_up_the_whole(size: int, total: int) -> None:
    parts = [range(*World(rank, size).share(total)) for rank in range(size)]
    if total < 2 * size:
        assert all(list(part) == list(range(total)) for part in parts)
        return
    assert [row for part in parts for row in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_it_is_alone_unless_torchrun_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "1")  # some other tool's
    assert world() == ALONE
    for name, value in zip(VARIABLES, ("3", "4", "1", "2", "localhost"), strict=True):
        monkeypatch.setenv(name, value)
    assert world() == World(3, 4, 1, 2)
    assert not world().is_main


@pytest.mark.parametrize("resident", [True, False])
def test_shares_of_all_processes_are_the_batches_of_one(resident: bool) -> None:
    pixels = torch.randint(0, 255, (27, 1, 6, 6), dtype=torch.uint8)
    split = Split(pixels, torch.arange(27) % 3)
    augment = AugmentConfig(crop_padding=1, flip=True)

    def batches(member: World) -> list[list[torch.Tensor]]:
        loader = TrainLoader(split, GREY, 8, augment, 5, "cpu", resident=resident, world=member)
        return [[batch.images, batch.targets, batch.index] for batch in loader.epoch(2)]

    one, first, second = batches(ALONE), batches(World(0, 2)), batches(World(1, 2))
    for whole, a, b in zip(one[:-1], first, second, strict=False):
        assert torch.equal(torch.cat([a[0], b[0]]), whole[0])
    for whole, a, b in zip(one, first, second, strict=True):
        assert all(torch.equal(part[k], whole[k]) for part in (a, b) for k in (1, 2))
    assert len(one[-1][0]) == 3  # too few for two processes: both have all of them
    assert torch.equal(first[-1][0], one[-1][0])
    assert torch.equal(second[-1][0], one[-1][0])
    seen = [
        batch.index.tolist()
        for rank in (0, 1)
        for batch in EvalLoader(split, GREY, 5, "cpu", resident=resident, world=World(rank, 2))
    ]
    assert [row for part in seen for row in part] == list(range(27))
