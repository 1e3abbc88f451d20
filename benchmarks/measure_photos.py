"""Folders of many photographs: listing, epochs side by side with ImageFolder, and peak memory.

    python benchmarks/measure_photos.py listing FOLDER          a tree of `make_photos.py names`
    python benchmarks/measure_photos.py epochs [--count 5000] [--rounds 5] [--workers 2] [--tree T]
    python benchmarks/measure_photos.py memory FOLDER [ARG...]  `kdrun distill` with these arguments

Each figure comes from a separate process, the variants take turns, and medians are printed with
the smallest and largest value. Wall time depends on what else the machine does; CPU time, of the
process, its threads and its workers, depends on it much less.

`epochs` reads batches of 64 images of 3×224×224, shuffled, mirrored at random and normalised, and
does nothing with them. `usual` is torchvision's ImageFolder and torch's DataLoader with
Resize(224), CenterCrop(224), RandomHorizontalFlip, ToTensor and Normalize: the pixels of kdrun.
`usual, RRC` has RandomResizedCrop(224) in place of the first two. `kdrun` lists the images, decodes
them with as many threads as the others have workers, and reads them from its cache, which is empty
at first. The main process computes with one thread.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BATCH, SIZE, EPOCHS = 64, 224, 3
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VARIANTS = ("usual", "usual, RRC", "kdrun")
Figures = dict[str, list[float]]


@contextmanager
def measured(figures: Figures, name: str) -> Iterator[None]:
    """Append wall and CPU seconds of a block to `figures[name]`."""
    wall, cpu = time.perf_counter(), _cpu_seconds()
    yield
    figures[name] = [time.perf_counter() - wall, _cpu_seconds() - cpu]


def _cpu_seconds() -> float:
    """CPU seconds of this process and of its workers that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _memory_mib() -> float:
    """Resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def usual_epochs(root: Path, workers: int, random_crop: bool) -> Figures:
    """Epochs of ImageFolder and DataLoader."""
    from torch.utils.data import DataLoader

    from kdrun.vision import import_torchvision

    vision = import_torchvision()
    transforms = vision.transforms
    sized = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE)]
    if random_crop:
        sized = [transforms.RandomResizedCrop(SIZE)]
    tail = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    transform = transforms.Compose([*sized, transforms.RandomHorizontalFlip(), *tail])
    figures: Figures = {}
    loader: Any = None
    for epoch in range(EPOCHS):
        with measured(figures, f"epoch {epoch + 1}"):
            if loader is None:
                images = vision.datasets.ImageFolder(root / "train", transform)
                loader = DataLoader(images, BATCH, shuffle=True, num_workers=workers)
            count = sum(len(batch) for batch, _ in loader)
        assert count == len(loader.dataset)
    return figures


def kdrun_epochs(root: Path, workers: int) -> Figures:
    """Epochs of kdrun, the first with listing and decoding."""
    from kdrun.config.schema import AugmentConfig, DatasetConfig
    from kdrun.data.dataset import open_dataset
    from kdrun.data.loaders.loaders import TrainLoader

    config = DatasetConfig(
        "photos",
        "kdrun.data.imagefolder.imagefolder",
        {"root": str(root), "image_size": SIZE},
        mean=list(MEAN),
        std=list(STD),
    )
    figures: Figures = {}
    with tempfile.TemporaryDirectory(dir=root.parent) as cache:
        loader: Any = None
        for epoch in range(EPOCHS):
            with measured(figures, f"epoch {epoch + 1}"):
                if loader is None:
                    data = open_dataset(config, 0, Path(cache))
                    loader = TrainLoader(
                        data.train,
                        data.normalisation,
                        BATCH,
                        AugmentConfig(flip=True),
                        0,
                        "cpu",
                        resident="false",
                        workers=workers,
                    )
                count = sum(len(batch) for batch in loader.epoch(epoch))
            assert count == len(data.train)
    return figures


def list_kdrun(root: Path) -> Figures:
    """Listing by kdrun: seconds, and MiB added by the list and at its peak."""
    from kdrun.data.folders.read import read_tree

    return _listing(lambda: read_tree(root))


def list_usual(root: Path) -> Figures:
    """Listing by torchvision's ImageFolder."""
    from kdrun.vision import import_torchvision

    vision = import_torchvision()
    return _listing(lambda: vision.datasets.ImageFolder(root / "train"))


def _listing(read: Callable[[], object]) -> Figures:
    figures: Figures = {}
    before = _memory_mib()
    with measured(figures, "listing"):
        listed = read()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["MiB"] = [_memory_mib() - before, peak - before]
    del listed
    return figures


def _in_a_process(variant: str, root: Path, workers: int) -> Figures:
    command = [sys.executable, __file__, "one", str(root), variant, "--workers", str(workers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _rounds(variants: tuple[str, ...], root: Path, rounds: int, workers: int) -> dict[str, Figures]:
    """Variant → figure → its values of all rounds: first of each pair, then second."""
    values: dict[str, Figures] = {variant: {} for variant in variants}
    for number in range(rounds):
        for variant in variants if number % 2 == 0 else variants[::-1]:
            for name, pair in _in_a_process(variant, root, workers).items():
                for suffix, value in zip(("", " CPU"), pair, strict=True):
                    values[variant].setdefault(name + suffix, []).append(value)
            print(f"round {number + 1}, {variant}", file=sys.stderr, flush=True)
    return values


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def epochs(count: int, rounds: int, workers: int, tree: Path | None) -> None:
    """Print seconds of the first and of later epochs."""
    from make_photos import write_photographs

    with tempfile.TemporaryDirectory() as folder:
        root = tree or Path(folder) / "photos"
        if tree is None:
            write_photographs(root, count, 20, 100, workers)
        values = _rounds(VARIANTS, root, rounds, workers)
    print("| variant | epoch 1, s | CPU, s | epoch 2 | CPU | epoch 3 | CPU |")
    print("|---|---|---|---|---|---|---|")
    for variant, figures in values.items():
        print(f"| {variant} | {' | '.join(map(_cell, figures.values()))} |")
    usual, kdrun = values["usual"], values["kdrun"]
    for name in usual:
        pairs = zip(usual[name], kdrun[name], strict=True)
        ratio = statistics.median([theirs / ours for theirs, ours in pairs])
        print(f"usual / kdrun, {name}: {ratio:.2f}")


def listing(root: Path, rounds: int) -> None:
    """Print seconds and memory of listing a tree."""
    values = _rounds(("list_usual", "list_kdrun"), root, rounds, 0)
    print("| variant | s | CPU, s | MiB kept | MiB at the peak |\n|---|---|---|---|---|")
    for variant, figures in values.items():
        print(f"| {variant} | {' | '.join(map(_cell, figures.values()))} |")


def memory(root: Path, arguments: list[str]) -> None:
    """Print the largest resident memory of `kdrun distill` on a tree, as sampled every second."""
    command = [sys.executable, "-m", "kdrun", "distill", "dataset=imagefolder"]
    process = subprocess.Popen([*command, f"dataset.root={root}", *arguments])
    began, peak = time.monotonic(), 0
    while process.poll() is None:
        time.sleep(1)
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            now = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
        except (OSError, StopIteration):  # it has just ended
            continue
        peak = max(peak, now)
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"exit code {process.returncode}, {time.monotonic() - began:.0f} s, "
        f"{cpu.ru_utime + cpu.ru_stime:.0f} s of CPU time, peak {peak / 1024:.0f} MiB"
    )


def one(variant: str, root: Path, workers: int) -> None:
    """Measure a variant in this process."""
    import torch

    from kdrun.engine.allocator import keep_freed_memory

    torch.set_num_threads(1)  # the workers use the other cores
    keep_freed_memory()  # as every run of kdrun does
    if variant == "kdrun":
        figures = kdrun_epochs(root, workers)
    elif variant.startswith("list"):
        figures = {"list_kdrun": list_kdrun, "list_usual": list_usual}[variant](root)
    else:
        figures = usual_epochs(root, workers, variant.endswith("RRC"))
    print(json.dumps(figures))


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("listing", "epochs", "memory", "one"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("arguments", nargs="*")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--tree", type=Path)
    values = parser.parse_args()
    if values.what == "epochs":
        epochs(values.count, values.rounds, values.workers, values.tree)
    elif values.folder is None:
        parser.error("name the folder")
    elif values.what == "listing":
        listing(values.folder, values.rounds)
    elif values.what == "memory":
        memory(values.folder, values.arguments)
    else:
        one(values.arguments[0], values.folder, values.workers)


if __name__ == "__main__":
    main()
