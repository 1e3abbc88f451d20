"""Tar shards read by processes that torchrun starts: every sample once per epoch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from data.test_sharing import tar_shards

CHILD = """
import json, sys
from pathlib import Path

import torch.distributed as dist

from kdrun.config.schema import AugmentConfig
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.data.webdataset import webdataset
from kdrun.engine import distributed
from kdrun.types import Normalisation
from kdrun.world import world

root = Path(sys.argv[1])
distributed.init()
with distributed.main_first():
    split = webdataset(root=str(root), cache_root=root / "cache").train
loader = TrainLoader(
    split, Normalisation((0.0,) * 3, (1 / 255,) * 3), 8, AugmentConfig(), 3, "cpu",
    resident="false", workers=2, world=world(),
)
seen = [batch.images[:, 0, 0, 0].round().int().tolist() for batch in loader.epoch(0)]
everyone = [None] * world().size
dist.all_gather_object(everyone, seen)
if world().is_main:
    (root / "seen.json").write_text(json.dumps(everyone))
distributed.shutdown()
"""


@pytest.mark.heavy
def test_two_processes_with_two_workers_share_one_shard(tmp_path: Path) -> None:
    tar_shards(tmp_path, 31, 1)
    (tmp_path / "child.py").write_text(CHILD)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*launcher, "--nproc-per-node=2", str(tmp_path / "child.py"), str(tmp_path)],
        check=True,
        timeout=300,
    )
    first, second = json.loads((tmp_path / "seen.json").read_text())
    batches = [a + b for a, b in zip(first, second, strict=True)]
    assert [len(batch) for batch in batches] == [8, 8, 8, 7]
    assert sorted(number for batch in batches for number in batch) == list(range(31))
