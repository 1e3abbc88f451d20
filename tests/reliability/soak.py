"""Many short runs in one process: memory, file handles, threads and temporary files must not grow.

    python -m tests.reliability.soak --runs 300

Each run trains a teacher and a student in a folder that is new and is deleted afterwards; every
tenth run is also evaluated, exported, reported and gone on with. After a warm-up the counts of
handles, threads and temporary files must stay what they are, and memory may grow by no more than a
few kilobytes a run, by a line fitted through all runs.
"""

import argparse
import contextlib
import gc
import io
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdrun.cli.main import run
from tests.reliability.world import TINY

GROWTH_KIB = 40.0  # per run, of a process of some hundred MiB


@dataclass(frozen=True)
class Use:
    """What a process holds. memory in KiB."""

    memory: float
    handles: int
    threads: int
    temporary: int


def use(temporary: Path) -> Use:
    """What this process holds now; temporary: where its temporary files go."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Use(
        pages * os.sysconf("SC_PAGE_SIZE") / 1024,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        sum(1 for _ in temporary.rglob("*")),
    )


def one_run(number: int, root: Path) -> None:
    """A run in a folder of its own, which is deleted."""
    folder = root / f"run{number}"
    folder.mkdir()
    os.chdir(folder)
    more = ["loss=[kd,sp]", "dataset.augment.crop_padding=1"] if number % 2 else []
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _kdrun("distill", *TINY, f"seed={number}", *more)
            found = str(next(folder.glob("outputs/distill/*/*/*/result.json")).parent)
            if number % 10 == 0:
                _kdrun("evaluate", f"run={found}", "ui=quiet")
                _kdrun("export", f"run={found}", "format=safetensors", "latency=false", "ui=quiet")
                _kdrun("report", "outputs")
                _kdrun("resume", found)
                _kdrun("distill", "-m", *TINY, "T=1,4")
    finally:
        os.chdir(root)
        shutil.rmtree(folder)


def _kdrun(*words: str) -> None:
    code = run(list(words))
    assert code == 0, (code, words)


def soak(runs: int, warm_up: int, root: Path) -> list[Use]:
    """What the process held after each run behind the warm-up."""
    temporary = root / "tmp"
    temporary.mkdir()
    tempfile.tempdir = str(temporary)
    held = []
    try:
        for number in range(warm_up + runs):
            one_run(number, root)
            if number >= warm_up:
                held.append(use(temporary))
    finally:
        tempfile.tempdir = None
    return held


def growth(held: list[Use]) -> float:
    """KiB of memory per run, by a line fitted through all runs."""
    return float(np.polyfit(np.arange(len(held)), [one.memory for one in held], 1)[0])


def problems(held: list[Use]) -> list[str]:
    """What grew, in words."""
    found = []
    for name in ("handles", "threads", "temporary"):
        first, last = (max(getattr(one, name) for one in part) for part in _ends(held))
        if last > first:
            found.append(f"{name} grew from {first} to {last}")
    if growth(held) > GROWTH_KIB:
        found.append(f"memory grew by {growth(held):.1f} KiB a run")
    return found


def _ends(held: list[Use]) -> tuple[list[Use], list[Use]]:
    size = max(10, len(held) // 5)
    return held[:size], held[-size:]


def main() -> int:
    """Soak as the command line says; the exit code is 1 when something grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--warm-up", type=int, default=20)
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kdrun-soak-") as folder:
        os.environ["XDG_STATE_HOME"] = f"{folder}/state"
        held = soak(given.runs, given.warm_up, Path(folder))
        os.chdir("/")
    first, last = held[0], held[-1]
    print(
        f"{given.runs} runs in {time.monotonic() - started:.0f} s after {given.warm_up} to warm up"
    )
    print(f"memory {first.memory / 1024:.1f} -> {last.memory / 1024:.1f} MiB, "
          f"{growth(held):+.2f} KiB a run")  # fmt: skip
    print(f"handles {first.handles} -> {last.handles}, threads {first.threads} -> {last.threads}, "
          f"temporary files {first.temporary} -> {last.temporary}")  # fmt: skip
    for problem in problems(held):
        print(problem)
    return 1 if problems(held) else 0


if __name__ == "__main__":
    sys.exit(main())
