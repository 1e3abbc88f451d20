"""A sweep of nine (three temperatures, three weights) with `gang=true`, against nine usual loops.

    python benchmarks/measure_sweep.py             all four pairs; half an hour on two idle cores
    python benchmarks/measure_sweep.py r56 mnist   those named

Start to finish: each side begins as a new process with the teacher trained and the images decoded,
and nothing remembered of what the teacher says. The usual loop is the one of `kdrun benchmark`,
with the validation split measured after each epoch; of the slow pairs three of nine are run, one
for each temperature, and counted three times.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import sweep_tables
from measure_performance import PAIRS, PHOTOS

EPOCHS = {"r32x4": 1, "wrn": 2, "r56": 4, "mnist": 6}
BARS = {"r32x4": 2.5, "wrn": 2.0, "r56": 4.0, "mnist": None}
# The weights with which the usual loop is run for each temperature.
ALPHAS = {"r32x4": (0.5,), "wrn": (0.5,), "r56": (0.1, 0.5, 0.9), "mnist": (0.1, 0.5, 0.9)}
IMAGES = {True: 5_000, False: 20_000}  # photographs or digits


def overrides(name: str, folder: Path) -> list[str]:
    """The pair's words for `kdrun distill`, with fewer images than a step needs."""
    skipped = ("dataset.train_size", "steps")
    words = [word for word in PAIRS[name] if word.split("=")[0] not in skipped]
    images = IMAGES[PAIRS[name][: len(PHOTOS)] == PHOTOS]
    return [
        *words,
        f"dataset.train_size={images}",
        "dataset.test_size=1000",
        "teacher.schedule.epochs=1",
        "teacher.fold=true",
        f"epochs={EPOCHS[name]}",
        "lr=0.01",
        "alone=false",
        f"output_root={folder}",
        "ui=quiet",
    ]


def seconds(command: list[str]) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def measure(name: str, folder: Path) -> tuple[float, list[float]]:
    """Seconds of the gang, and of each usual loop that is run."""
    words = overrides(name, folder)
    kdrun = [sys.executable, "-m", "kdrun"]
    subprocess.run([*kdrun, "train-teacher", *_of_teacher(words)], check=True)
    sweep = [*kdrun, "distill", "-m", "T=1,4,20", "alpha=0.1,0.5,0.9", "gang=true", *words]
    print("kdrun " + " ".join(sweep[3:]), flush=True)
    shutil.rmtree(folder / "cache" / "teacher-outputs", ignore_errors=True)
    gang = seconds(sweep)
    usual = []
    for temperature in (1, 4, 20):
        for alpha in ALPHAS[name]:
            one = [sys.executable, __file__, "--usual", f"T={temperature}", f"alpha={alpha}"]
            usual.append(seconds([*one, *words]))
    return gang, usual


def _of_teacher(words: list[str]) -> list[str]:
    """The words that `kdrun train-teacher` knows."""
    names = ("dataset", "teacher", "output_root", "ui")
    known = [word for word in words if word.split("=")[0].split(".")[0] in names]
    return [word for word in known if not word.startswith("teacher.fold=")]


def usual_run(words: list[str]) -> None:
    """One distillation with the usual loop, in this process; the networks are untrained."""
    import torch
    from hydra import compose, initialize_config_module
    from reference.images import PilImages
    from reference.variant import UsualVariant

    from kdrun.benchmarking.variants import Bench, variant_config
    from kdrun.config.parse import distill_config
    from kdrun.data.images import Split
    from kdrun.distillation.session import open_data, open_session

    with initialize_config_module("kdrun.configs", version_base="1.3"):
        config = distill_config(compose("distill", overrides=words))
    with open_session(config.runtime) as session:
        dataset = open_data(session, config.dataset, config.val_fraction)
        steps = -(-len(dataset.train) // config.schedule.batch_size)
        usual = UsualVariant(variant_config("plain", config), Bench(dataset, session, steps))
        val: Split | None = dataset.val
        assert val is not None
        images = PilImages(
            val, replace(config.dataset.augment, crop_padding=0, flip=False), dataset.normalisation
        )
        loader = torch.utils.data.DataLoader(images, batch_size=config.schedule.eval_batch_size)
        student = usual.scheme.student.network
        for _ in range(config.schedule.epochs):
            student.train()
            usual.block()
            student.eval()
            with torch.no_grad():
                right = sum(
                    (student(batch).argmax(1) == targets).sum().item()
                    for batch, targets, _ in loader
                )
        print(f"usual loop: {100 * right / len(val):.1f} % of the validation images right")


def main() -> None:
    """Measure the pairs that were named, or all, and print the table."""
    if sys.argv[1:2] == ["--usual"]:
        usual_run(sys.argv[2:])
        return
    rows = []
    for name in sweep_tables.chosen(__doc__, EPOCHS) or EPOCHS:
        with tempfile.TemporaryDirectory() as folder:
            gang, usual = measure(name, Path(folder))
        nine = 9 * sum(usual) / len(usual)
        bar = "" if BARS[name] is None else f"{BARS[name]:g}"
        rows.append(
            f"| {name} | {gang:.1f} | {nine:.1f} | {min(usual):.1f}-{max(usual):.1f} "
            f"(n={len(usual)}) | {nine / gang:.2f} | {bar} |"
        )
        print(rows[-1], flush=True)
    print("\n| pair | nine in lockstep, s | nine usual loops, s | one, s | ratio | at least |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
