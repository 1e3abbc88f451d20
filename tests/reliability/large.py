"""The largest and the smallest: many runs, many classes, huge and tiny pictures, a million images.

    python -m tests.reliability.large

Each case is a process of its own, whose largest memory is what it says; a line says what was done.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.reliability.world import TINY, make_world

PLAIN = [word for word in TINY if not word.startswith(("dataset", "alone"))]
QUICK = [*PLAIN, "alone=false", "epochs=1", "teacher.schedule.epochs=1"]
STEPS = ["schedule.steps=5", "teacher.schedule.steps=5"]


def sealed_runs(folder: Path, count: int = 200) -> str:
    """A report of finished runs that are checked, and of the same without their lists."""
    from kdrun.checksums import SUMS, seal
    from tests.report.conftest import config, result, write_run

    lists = []
    for number in range(count):
        settings = config(T=1.0 + number // 10, seed=number % 10)
        run = folder / "outputs" / "distill" / f"{number:04}"
        write_run(run, settings, result(settings, 90.0 + number % 7, 88.0, "completed"), 91.0)
        with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
            for epoch in range(6, 241):
                row = {"epoch": epoch, "step": epoch, "val/top1_percent": 91.0, "lr": 0.1}
                file.write(json.dumps(row) + "\n")
        names = ("result.json", "config.yaml", "metrics.jsonl", "command.txt", "env.json")
        seal(run, names)
        lists.append(run / SUMS)
    checked, _ = kdrun(folder, "report", "outputs")
    for path in lists:
        path.unlink()
    plain, _ = kdrun(folder, "report", "outputs")
    return f"a report of {count} runs of 240 epochs: {checked:.1f} s checked, {plain:.1f} s not"


def kdrun(folder: Path, *words: str) -> tuple[float, float]:
    """(seconds, largest MiB) of a command in a process of its own, which must end well."""
    program = (
        "import resource, sys; from kdrun.cli.main import run; code = run(sys.argv[1:]); "
        "print('MiB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024); sys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - started, float(done.stdout.split("MiB")[-1])


def result(folder: Path) -> dict[str, object]:
    """The result of the run that was made there last."""
    paths = folder.glob("outputs/distill/*/*/*/result.json")
    found: dict[str, object] = json.loads(max(paths, key=os.path.getmtime).read_text())
    return found


def picture(path: Path, size: int, seed: int) -> None:
    """A file of size × size coloured pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def thousand_runs(folder: Path, count: int = 1000) -> str:
    """A report of a thousand finished runs."""
    before = Path.cwd()
    (folder / "world").mkdir()
    os.chdir(folder / "world")
    world = make_world(folder / "world")
    os.chdir(before)
    for number in range(count):
        copy = folder / "outputs" / "distill" / f"{number:04}"
        copy.mkdir(parents=True)
        for name in ("config.yaml", "env.json", "command.txt", "metrics.jsonl"):
            shutil.copy(world.run / name, copy / name)
        values = json.loads((world.run / "result.json").read_text())
        values |= {"seed": number % 10, "T": 1.0 + number // 10 % 10, "alpha": number // 100 / 10}
        (copy / "result.json").write_text(json.dumps(values))
    seconds, memory = kdrun(folder, "report", "outputs")
    lines = (folder / "report-runs.csv").read_text().count("\n")
    assert lines == count + 1, lines
    return f"report of {count:,} runs: {seconds:.1f} s, {memory:.0f} MiB"


def thousand_classes(folder: Path) -> str:
    """A thousand classes of two images."""
    data = ["dataset=synthetic", "dataset.num_classes=1000", "dataset.train_size=2000",
            "dataset.test_size=1000", "dataset.image_size=8", "val_fraction=0.5"]  # fmt: skip
    seconds, memory = kdrun(folder, "distill", *QUICK, *data)
    found = result(folder)["dataset"]
    assert isinstance(found, dict)
    assert (found["num_classes"], found["train_size"], found["val_size"]) == (1000, 1000, 1000)
    return f"1,000 classes of two images: {seconds:.1f} s, {memory:.0f} MiB"


def one_each(folder: Path) -> str:
    """A thousand classes with one training image each."""
    data = ["dataset=synthetic", "dataset.num_classes=1000", "dataset.train_size=1000",
            "dataset.test_size=1000", "dataset.image_size=8", "val_fraction=0"]  # fmt: skip
    seconds, memory = kdrun(folder, "distill", *QUICK, *data)
    return f"one image for each of 1,000 classes: {seconds:.1f} s, {memory:.0f} MiB"


def one_pixel(folder: Path) -> str:
    """Pictures of a single pixel."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            for number in range(6):
                picture(folder / "photos" / split / name / f"{number}.png", 1, number)
    data = ["dataset=imagefolder", "dataset.root=photos"]
    nets = ["teacher=mlp1200", "student=mlp800", "val_fraction=0.2"]
    words = [word for word in QUICK if not word.startswith(("teacher=", "student="))]
    seconds, memory = kdrun(folder, "distill", *words, *data, *nets, "batch_size=4")
    return f"pictures of 1 pixel: {seconds:.1f} s, {memory:.0f} MiB"


def thousand_pixels(folder: Path) -> str:
    """Pictures of 1000 × 1000 pixels, as they are, and streamed."""
    for split, count in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            for number in range(count):
                picture(folder / "photos" / split / name / f"{number}.png", 1000, number)
    data = ["dataset=imagefolder", "dataset.root=photos", "val_fraction=0", "batch_size=2"]
    small = ["teacher.schedule.batch_size=2", "schedule.eval_batch_size=2",
             "teacher.schedule.eval_batch_size=2", "dataset.resident=false"]  # fmt: skip
    seconds, memory = kdrun(folder, "distill", *QUICK, *data, *small)
    return f"pictures of 1,000 × 1,000 pixels: {seconds:.1f} s, {memory:.0f} MiB"


def million(folder: Path) -> str:
    """A million images of 3 × 32 × 32, in memory as bytes; a few steps."""
    data = ["dataset=synthetic", "dataset.train_size=1000000", "dataset.test_size=1000",
            "dataset.image_size=32", "val_fraction=0", "teacher.cache=off"]  # fmt: skip
    seconds, memory = kdrun(folder, "distill", *QUICK, *STEPS, *data)
    images = 1_000_000 * 3 * 32 * 32 / 2**20
    assert memory < 1.5 * images + 1024, f"{memory:.0f} MiB for {images:.0f} MiB of images"
    return f"1,000,000 images of {images:.0f} MiB: {seconds:.1f} s, {memory:.0f} MiB at most"


CASES: dict[str, Callable[[Path], str]] = {
    "runs": thousand_runs,
    "sealed": sealed_runs,
    "classes": thousand_classes,
    "one-each": one_each,
    "one-pixel": one_pixel,
    "thousand-pixels": thousand_pixels,
    "million": million,
}


def main() -> int:
    """Do all cases, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"all, or some of {', '.join(CASES)}")
    cases = parser.parse_args().cases
    unknown = [name for name in cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case {', '.join(unknown)}")
    for name in cases or CASES:
        with tempfile.TemporaryDirectory(prefix="kdrun-large-") as folder:
            os.environ["XDG_STATE_HOME"] = f"{folder}/state"
            print(f"{name}: {CASES[name](Path(folder))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
