"""Whether the cost of an image stays the same from a thousand images to a million, and more.

    python benchmarks/measure_scale.py           all parts
    python benchmarks/measure_scale.py start           start-up time
    python benchmarks/measure_scale.py decode FOLDER   decode a folder of PNG images, no cache
    python benchmarks/measure_scale.py images | classes | processes

`images` and `classes` are `kdrun benchmark` with a small network, whose data would show; each line
is a process of its own, so that its largest memory is its own.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KDRUN = [sys.executable, "-m", "kdrun"]
SMALL = ["dataset=synthetic", "dataset.image_size=32", "dataset.test_size=100"]
VIEWS = ["dataset.augment.crop_padding=4", "dataset.augment.flip=true"]
STUDENT = ["loss=ce", "student=resnet8", "ui=quiet"]


def seconds(command: list[str], times: int = 3) -> float:
    """The median of some runs of a command, the first of which does not count."""
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def benchmark(words: list[str]) -> dict[str, Any]:
    """The figures of one `kdrun benchmark`, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        measured = ["compare=[]", "rounds=6", "steps=8", f"output_root={folder}"]
        subprocess.run([*KDRUN, "benchmark", *SMALL, *STUDENT, *words, *measured], check=True)
        (path,) = Path(folder).glob("benchmark/*/*/*/benchmark.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def start() -> None:
    """From the command to its help, and to the end of a training of one step."""
    print("| what | s |\n|---|---|")
    print(f"| kdrun --help | {seconds([*KDRUN, '--help'], 5):.2f} |")
    with tempfile.TemporaryDirectory() as folder:
        step = [*SMALL, *VIEWS, *STUDENT, "dataset.train_size=50000", "val_fraction=0.01"]
        step += ["schedule.steps=1", f"output_root={folder}"]
        took = seconds([*KDRUN, "distill", *step])
    print(f"| 50,000 images of 32 × 32: one step, measured and written, all in all | {took:.2f} |")


def decode(folder: str) -> None:
    """A folder of images, decoded and kept; then found again."""
    print(f"| {folder} | s |\n|---|---|")
    code = (
        "import sys; from pathlib import Path; from kdrun.config.schema import DatasetConfig;"
        "from kdrun.data.dataset import open_dataset;"
        "config = DatasetConfig('images', 'kdrun.data.imagefolder.imagefolder',"
        " {'root': sys.argv[1]}, mean=[0.5] * 3, std=[0.25] * 3);"
        "found = open_dataset(config, 0.1, Path(sys.argv[2]), lambda *_: None);"
        "print(len(found.train) + len(found.val) + len(found.test), 'images')"
    )
    with tempfile.TemporaryDirectory() as cache:
        for what in ("from nothing", "found again"):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code, folder, cache], check=True)
            print(f"| {what}, with the program's start | {time.perf_counter() - began:.1f} |")


def images() -> None:
    """From a thousand images to a million: in memory, and streamed."""
    print("| images | resident | ms a step of 64 | data, ms | MiB in all | MiB of images |")
    print("|---|---|---|---|---|---|")
    for count in (1_000, 10_000, 100_000, 1_000_000):
        for resident in ("true", "false"):
            words = [*VIEWS, f"dataset.train_size={count}", f"dataset.resident={resident}"]
            print(f"| {count:,} | {resident} | {_cells(benchmark(words))} |", flush=True)


def classes() -> None:
    """From ten classes to a thousand."""
    print("| classes | resident | ms a step of 64 | data, ms | MiB in all | MiB of images |")
    print("|---|---|---|---|---|---|")
    for count in (10, 100, 1_000):
        words = [*VIEWS, "dataset.train_size=20000", f"dataset.num_classes={count}"]
        print(f"| {count:,} | true | {_cells(benchmark(words))} |", flush=True)


def _cells(found: dict[str, Any]) -> str:
    step = found["variants"]["this configuration"]["step_ms"]["median"]
    memory = found["memory"]
    return " | ".join(
        [
            f"{step:.2f}",
            f"{found['phases_ms']['data']:.3f}",
            f"{memory['process_peak_mib']:,.0f}",
            f"{memory['resident_images_mib']:,.0f}",
        ]
    )


def processes() -> None:
    """Images per second of one process with all processors, and of one process for each."""
    cores = len(os.sched_getaffinity(0))
    words = [*SMALL, *VIEWS, "ui=quiet", "teacher=resnet20", "student=resnet8", "batch_size=128"]
    words += ["dataset.train_size=5000", "teacher.schedule.epochs=1", "epochs=2"]
    words += ["teacher.cache=off", "alone=false"]
    several = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    several += [f"--nproc-per-node={cores}", "-m", "kdrun"]
    print("| processes | threads each | images a second |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for count, command, threads in ((1, KDRUN, cores), (cores, several, 1)):
            root = f"{folder}/{count}"
            run = [*command, "distill", *words, f"threads={threads}", f"output_root={root}"]
            subprocess.run(run, check=True)
            (path,) = Path(root).glob("distill/*/*/*/result.json")
            rate = json.loads(path.read_text())["time"]["images_per_second"]
            print(f"| {count} | {threads} | {rate:,.0f} |", flush=True)


PARTS = {"start": start, "images": images, "classes": classes, "processes": processes}


def main() -> None:
    """The parts that were named, or all."""
    words = sys.argv[1:]
    if words[:1] == ["decode"]:
        if len(words) != 2:
            raise SystemExit(__doc__)
        decode(words[1])
        return
    unknown = [word for word in words if word not in PARTS]
    if unknown:
        raise SystemExit(__doc__)
    for name in words or PARTS:
        print(f"\n{name}", flush=True)
        PARTS[name]()


if __name__ == "__main__":
    main()
