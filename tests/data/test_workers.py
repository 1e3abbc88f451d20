"""Loader processes: an error in one is a sentence, and none outlives the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kdrun.data.images import LazyImages, Split
from kdrun.data.loaders import EvalLoader
from kdrun.errors import DataError
from kdrun.types import Normalisation

CHILD = """
import time, torch
from kdrun.data.images import LazyImages, Split
from kdrun.data.loaders import EvalLoader
from kdrun.types import Normalisation

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
def test_workers_end_with_a_run_that_is_killed() -> None:
    """They hold its locks, so nobody could go on with it."""
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 3  # left to themselves they notice after five seconds
    while time.monotonic() < deadline and _lives(worker):
        time.sleep(0.02)
    assert not _lives(worker)
    process.stdout.close()


def _lives(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
