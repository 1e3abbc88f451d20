"""Measures every line of docs/performance.md on this machine and writes the table.

    python benchmarks/measure_performance.py             all pairs; 15 minutes on two idle cores
    python benchmarks/measure_performance.py r56 mnist   some: r32x4 wrn r56 mnist crd gpu64 gpu256

Each line is an ordinary `kdrun benchmark` whose command is printed; the figures are medians of
ratios taken round by round. Nothing else should run meanwhile.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import sweep_tables

PHOTOS = [
    "dataset=synthetic",
    "dataset.image_size=32",
    "dataset.num_classes=100",
    "dataset.train_size=50000",
    "dataset.augment.crop_padding=4",
    "dataset.augment.flip=true",
    "loss=kd",
    "batch_size=64",
]
DIGITS = [
    "dataset=synthetic",
    "dataset.image_size=28",
    "dataset.channels=1",
    "dataset.num_classes=10",
    "dataset.train_size=60000",
    "loss=kd",
    "batch_size=128",
    "steps=40",
]
PAIRS = {
    "r32x4": [*PHOTOS, "teacher=resnet32x4", "student=resnet8x4"],
    "wrn": [*PHOTOS, "teacher=wrn_40_2", "student=wrn_16_2"],
    "r56": [*PHOTOS, "teacher=resnet56", "student=resnet8", "steps=8"],
    "mnist": [*DIGITS, "teacher=mlp1200", "student=mlp800"],
}


def changed(words: list[str], *changes: str) -> list[str]:
    """`words` with some settings replaced or added."""
    settings = dict(word.split("=", 1) for word in (*words, *changes))
    return [f"{key}={value}" for key, value in settings.items()]


PAIRS["crd"] = changed(PAIRS["r56"], "loss=crd", "steps=4")
for size in (64, 256):
    on_gpu = (f"batch_size={size}", "device=cuda", "steps=40")
    PAIRS[f"gpu{size}"] = changed(PAIRS["r32x4"], *on_gpu)
VARIANTS = "plain,folded,compiled,teacher_bf16,bf16,remembered,remembered_bf16"
# What is to be reached: whole step over bare compute, then each variant over the usual loop.
BARS = {
    "r32x4": [0.95, 1.15, 1.15, 1.25, 1.8, 2.35, 3.1, 5.5],
    "wrn": [0.95, 1.2, 1.2, 1.25, 1.6, 2.4, 2.35, 4.2],
    "r56": [0.95, 1.5, 1.5, 1.6, 2.3, 2.9, 5.0, 7.5],
    "mnist": [0.95, 2.0, None, None, None, None, 3.2, None],
    "gpu64": [None, None, None, None, None, 5.0, None, None],
    "gpu256": [None, None, None, None, None, 5.0, None, None],
}
# One variant alone: CRD with all negatives gathered is the usual loop.
ALONE = {"crd": ("plain", 4.0)}


def benchmark(words: list[str], folder: Path) -> dict[str, Any]:
    """One `kdrun benchmark`; returns its figures."""
    command = ["benchmark", *words, f"output_root={folder}"]
    print("kdrun " + " ".join(command), flush=True)
    subprocess.run([sys.executable, "-m", "kdrun", *command], check=True)
    newest = max(folder.glob("benchmark/*/*/*/benchmark.json"), key=os.path.getmtime)
    return dict(json.loads(newest.read_text()))


def lines(name: str, found: dict[str, Any]) -> list[tuple[str, str, float, float, float, Any]]:
    """(pair, what, median, lower quartile, upper quartile, bar) of a pair's figures."""
    bare = found["bare_over_whole"]
    over_bare, *bars = BARS.get(name, [0.95])
    rows = [(name, "whole step / bare compute", *_spread(bare), over_bare)]
    usual = found["variants"]["usual"]["times_this"]["median"]
    wanted = zip(VARIANTS.split(","), bars, strict=True) if bars else [ALONE[name]]
    for variant, bar in wanted:
        times = found["variants"][variant]["times_this"]
        over = [times[key] / usual for key in ("median", "low", "high")]
        rows.append((name, f"{variant} / usual loop", over[0], over[1], over[2], bar))
    return rows


def _spread(values: dict[str, float]) -> tuple[float, float, float]:
    return values["median"], values["low"], values["high"]


def main() -> None:
    """Measure the pairs that were named, or all, and print the table."""
    chosen = sweep_tables.chosen(__doc__, PAIRS) or [
        name for name in PAIRS if not name.startswith("gpu")
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            compared = ALONE[name][0] if name in ALONE else VARIANTS
            words = [*PAIRS[name], f"compare=[usual,{compared}]", "rounds=10"]
            rows += lines(name, benchmark(words, Path(folder)))
    print("\n| pair | measure | median | quartiles | at least | reached |")
    print("|---|---|---|---|---|---|")
    for name, what, median, low, high, bar in rows:
        reached = "" if bar is None else "yes" if median >= bar else "no"
        shown = "" if bar is None else f"{bar:g}"
        print(f"| {name} | {what} | {median:.2f} | {low:.2f}-{high:.2f} | {shown} | {reached} |")


if __name__ == "__main__":
    main()
