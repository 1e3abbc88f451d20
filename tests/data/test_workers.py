"""Loader processes: an error in one is a sentence, and none outlives the run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from kdrun.data.images import LazyImages, Split
from kdrun.data.loaders.loaders import EvalLoader
from kdrun.errors import DataError
from kdrun.types import Normalisation

CHILD = """
import sys, time, torch
from filelock import FileLock
from kdrun.data.images import LazyImages, Split
from kdrun.data.loaders.loaders import EvalLoader
from kdrun.types import Normalisation

lock = FileLock(sys.argv[1])
lock.acquire()

class Slow(LazyImages):
    shape, dtype = (64, 1, 2, 2), torch.uint8
    def gather(self, index):
        print(__import__("os").getpid(), flush=True)
        time.sleep(60)

split = Split(Slow(), torch.zeros(64, dtype=torch.int64))
list(EvalLoader(split, Normalisation((0.0,), (1.0,)), 8, "cpu", resident="false", workers=1))
"""


class Damaged(LazyImages):
    """The second batch cannot be read."""

    shape, dtype = (24, 1, 2, 2), torch.uint8

    def gather(self, index: torch.Tensor) -> torch.Tensor:
        if index[0] == 8:
            raise DataError("photo.png cannot be decoded: replace it.")
        return torch.zeros(len(index), 1, 2, 2, dtype=torch.uint8)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_is_its_sentence(workers: int) -> None:
    split = Split(Damaged(), torch.zeros(24, dtype=torch.int64))
    loader = EvalLoader(
        split, Normalisation((0.0,), (1.0,)), 8, "cpu", resident="false", workers=workers
    )
    batches = iter(loader)
    assert len(next(batches)) == 8
    with pytest.raises(DataError, match=r"^photo\.png cannot be decoded: replace it\.$"):
        next(batches)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forks on Linux only")
def test_the_lock_of_a_run_that_is_killed_is_free_though_its_workers_live(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", CHILD, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    with pytest.raises(Timeout):  # the worker has let go of it, and the run has not
        FileLock(path).acquire(timeout=0)
    process.kill()
    process.wait()
    os.kill(worker, 0)  # it is still there
    FileLock(path).acquire(timeout=30)
    os.kill(worker, signal.SIGKILL)
    process.stdout.close()
