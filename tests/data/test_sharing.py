"""Tar shards and Parquet files over loader workers and ranks: every sample once per epoch."""

import io
import itertools
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdrun.config.schema import AugmentConfig
from kdrun.data.images import RawDataset, Split
from kdrun.data.loaders.loaders import EvalLoader, TrainLoader
from kdrun.data.parquet import parquet
from kdrun.data.webdataset import webdataset
from kdrun.types import Batch, Normalisation
from kdrun.world import World

AS_STORED = Normalisation((0.0,) * 3, (1 / 255,) * 3)
Pack = Callable[[int, int], RawDataset]


def photo(number: int) -> bytes:
    """A PNG of 4×4 pixels whose first pixel is its number."""
    pixels = np.full((4, 4, 3), number, np.uint8)
    pixels[1:] = np.random.default_rng(number).integers(0, 256, (3, 4, 3))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def parts(count: int, shards: int) -> list[range]:
    """Unequal shares of `count` samples."""
    cuts = [0, *(count * (number + 1) // shards for number in range(shards))]
    return [range(first, end) for first, end in itertools.pairwise(cuts)]


def tar_shards(root: Path, count: int, shards: int) -> None:
    for name, total in (("train", count), ("test", 4)):
        for shard, numbers in enumerate(parts(total, shards if name == "train" else 1)):
            with tarfile.open(root / f"{name}-{shard:03d}.tar", "w") as tar:
                for number in numbers:
                    for ending, content in (("png", photo(number)), ("cls", b"%d" % (number % 2))):
                        info = tarfile.TarInfo(f"{number:05d}.{ending}")
                        info.size = len(content)
                        tar.addfile(info, io.BytesIO(content))


def parquet_files(root: Path, count: int, shards: int) -> None:
    arrow = pytest.importorskip("pyarrow", reason="needs kdrun[parquet]")
    writer = pytest.importorskip("pyarrow.parquet")
    for name, total in (("train", count), ("test", 4)):
        for shard, numbers in enumerate(parts(total, shards if name == "train" else 1)):
            table = arrow.table(
                {"image": [photo(n) for n in numbers], "label": [n % 2 for n in numbers]}
            )
            writer.write_table(table, root / f"{name}-{shard:03d}.parquet", row_group_size=3)


SOURCES = {"tar": (tar_shards, webdataset), "parquet": (parquet_files, parquet)}


@pytest.fixture(params=["tar", "tar on demand", "parquet", "parquet on demand"])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Pack:
    """pack(count, shards): a data set of `count` training samples in `shards` files."""
    kind, _, on_demand = request.param.partition(" ")
    write, read = SOURCES[kind]

    def call(count: int, shards: int) -> RawDataset:
        write(tmp_path, count, shards)
        return read(root=str(tmp_path), cache_root=tmp_path / "cache", cache=not on_demand)

    return call


def train_batches(split: Split, epoch: int, world: World, workers: int, size: int) -> list[Batch]:
    loader = TrainLoader(
        split, AS_STORED, size, AugmentConfig(), 3, "cpu",
        resident="false", workers=workers, world=world,
    )  # fmt: skip
    return list(loader.epoch(epoch))


def numbers(images: torch.Tensor) -> list[int]:
    return images[:, 0, 0, 0].round().int().tolist()


def seen_by(ranks: list[list[Batch]], world_size: int) -> list[list[int]]:
    """The samples of each batch, in order. A batch that is too small to share is on every rank."""
    batches = []
    for shares in zip(*ranks, strict=True):
        samples = [numbers(batch.images) for batch in shares]
        total = len(shares[0].index)
        if total < 2 * world_size:
            assert all(share == samples[0] for share in samples)
            samples = samples[:1]
        batches.append([number for share in samples for number in share])
        assert len(batches[-1]) == total
        assert all(torch.equal(batch.index, shares[0].index) for batch in shares)
        assert [number % 2 for number in batches[-1]] == shares[0].targets.tolist()
    return batches


@pytest.mark.parametrize(
    ("count", "shards", "size"),
    [(23, 2, 8), (25, 5, 4), (7, 1, 16)],
)
def test_ranks_share_every_epoch(pack: Pack, count: int, shards: int, size: int) -> None:
    split = pack(count, shards).train
    single = [seen_by([train_batches(split, epoch, World(), 0, size)], 1) for epoch in (0, 1)]
    assert single[0] != single[1]
    dropped = 1 if count % size == 1 else 0  # a last batch of one image
    for epoch, batches in enumerate(single):
        seen = Counter(number for batch in batches for number in batch)
        assert set(seen.values()) == {1}
        assert len(seen) == count - dropped
        for world_size in (2, 3):
            ranks = [
                train_batches(split, epoch, World(rank, world_size), 0, size)
                for rank in range(world_size)
            ]
            assert seen_by(ranks, world_size) == batches


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("pack", ["tar on demand", "parquet"], indirect=True)
def test_workers_share_every_epoch(pack: Pack) -> None:
    split = pack(23, 2).train  # fewer shards than workers
    expected = seen_by([train_batches(split, 1, World(), 0, 4)], 1)
    ranks = [train_batches(split, 1, World(rank, 2), 3, 4) for rank in range(2)]
    assert seen_by(ranks, 2) == expected


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_an_evaluation(pack: Pack, world_size: int) -> None:
    split = pack(23, 3).train
    loaders = [
        EvalLoader(split, AS_STORED, 4, "cpu", resident="false", world=World(rank, world_size))
        for rank in range(world_size)
    ]
    seen = [number for loader in loaders for batch in loader for number in numbers(batch.images)]
    assert seen == list(range(23))


def test_the_order_does_not_depend_on_the_number_of_shards(tmp_path: Path) -> None:
    orders = []
    for shards in (1, 4):
        root = tmp_path / str(shards)
        root.mkdir()
        tar_shards(root, 23, shards)
        split = webdataset(root=str(root), cache_root=root / "cache").train
        orders.append(seen_by([train_batches(split, 0, World(), 0, 8)], 1))
    assert orders[0] == orders[1]
