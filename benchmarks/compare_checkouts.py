"""Two versions of kdrun side by side: the time of the same commands.

    python benchmarks/compare_checkouts.py BEFORE AFTER

BEFORE, AFTER: Python interpreters of two virtual environments, each with one version installed
(`git worktree add ../before COMMIT`, then `pip install -e ../before` in a second environment).
Each command runs with both in turn, in new processes and empty folders, `ROUNDS` times after a
warm-up that does not count. The table shows the medians of CPU time (both cores, children
included) and wall time, and the medians and the range of after / before, round by round: below 1
the new version is faster. The last column is a training step in ms, as `kdrun benchmark` measures
it. Python caches the bytecode of both, as after any installation, whatever the environment says.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
QUIET = "threads=1 ui=quiet"
TRAINED = f"teacher.schedule.epochs=5 epochs=10 {QUIET}"
PAIR = "dataset=synthetic dataset.train_size=2000 loss=kd compare=[]"
COLOUR = f"{PAIR} dataset.image_size=32 dataset.augment.crop_padding=4 dataset.augment.flip=true"
GREY = f"{PAIR} dataset.image_size=28 dataset.channels=1 batch_size=128"
COMMANDS = {
    "kdrun ls student": "ls student",
    "kdrun --version": "--version",
    "digits, both stages": f"distill {TRAINED}",
    "digits, streamed": f"distill dataset.resident=false {TRAINED}",
    "digits, four jobs in lockstep": f"distill -m T=1,4 alpha=0.1,0.9 gang=true {TRAINED}",
    "resnet20 → resnet8, 60 steps": f"benchmark {COLOUR} teacher=resnet20 student=resnet8 "
    f"rounds=6 steps=10 {QUIET}",
    "mlp1200 → mlp800, 200 steps": f"benchmark {GREY} teacher=mlp1200 student=mlp800 "
    f"rounds=10 steps=20 {QUIET}",
}
Times = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    print("| command | CPU s: before, after | ratio | wall s: before, after | ratio | step ms |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, command in COMMANDS.items():
        words = command.split()
        pairs = [
            (measure(arguments.before, words), measure(arguments.after, words))
            for _ in range(arguments.rounds + 1)
        ]
        print(row(name, pairs[1:]), flush=True)


def measure(python: Path, words: list[str]) -> Times:
    """Seconds of one run: `cpu` and `wall`; for a benchmark also `step`, in ms."""
    environment = {key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        before, began = os.times(), time.perf_counter()
        line = [str(python.absolute()), "-m", "kdrun", *words]
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
        wall, after = time.perf_counter() - began, os.times()
        if done.returncode:
            sys.exit(f"{' '.join(line)}\n{done.stdout}{done.stderr}")
        times = {"cpu": sum(after[2:4]) - sum(before[2:4]), "wall": wall}
        for path in Path(folder).glob("outputs/benchmark/*/*/*/benchmark.json"):
            own = json.loads(path.read_text())["variants"]["this configuration"]
            times["step"] = float(own["step_ms"]["median"])
        return times


def row(name: str, pairs: list[tuple[Times, Times]]) -> str:
    """Markdown: medians, and the ratios with their range."""
    cells = [name]
    for key in ("cpu", "wall", "step"):
        if key not in pairs[0][0]:
            cells.append("")
            continue
        values = [f"{statistics.median(pair[side][key] for pair in pairs):.2f}" for side in (0, 1)]
        ratios = [after[key] / before[key] for before, after in pairs]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        cells += [f"{', '.join(values)}: {ratio}"] if key == "step" else [", ".join(values), ratio]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
