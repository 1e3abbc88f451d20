"""What each augmentation policy and each part of a recipe gains: `kdrun distill`, n seeds each.

    python benchmarks/measure_recipes.py digits --out DIR                     policies, parts, cycle
    python benchmarks/measure_recipes.py cifar100 --out DIR --data ROOT --teacher resnet56.pth
    python benchmarks/measure_recipes.py digits policies --out DIR --seeds 5

Every line is one `kdrun distill -m` command, which is printed. Finished lines are kept in
DIR/recipes.json and not run again. Test accuracy of the last epoch in percent, mean ± standard
deviation; the difference is paired by seed, to the first line of each table. CIFAR-100 is a tenth
of the training images (--fraction), RepDistiller's published ResNet-56 and ResNet-8.
"""

import argparse
import csv
import json
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import sweep_tables
from sweep_tables import spread

DIGITS = ["dataset=digits", "teacher=cnn_large", "student.widths=[8,16]", "epochs=60"]
CIFAR = ["dataset=cifar100", "dataset.download=false", "teacher=resnet56", "student=resnet8"]
CIFAR += ["schedule=cosine", "schedule.warmup_epochs=2", "batch_size=64", "lr=0.05", "epochs=10"]
CIFAR += ["val_fraction=0.02"]

# Digits are not mirrored, and lose their shape in crops of a small share of the area.
SMALL = ["augment.flip=false", "augment.scale=[0.5,1]"]
VIEWS = ["augment=randaugment"]

Rows = dict[str, list[str]]


def digits_tables() -> dict[str, Rows]:
    """Table → name of a line → its settings, for 8×8 digits."""
    policies: Rows = {"none": ["augment=none"], "crop_flip": ["augment.crop_padding=1"]}
    for name in ("randaugment", "autoaugment", "trivialaugment"):
        policies[name] = [f"augment={name}", "augment.crop_padding=1"]
    for name in ("three_augment", "imagenet", "deit", "timm_a2", "timm_a3"):
        policies[name] = [f"augment={name}", *SMALL[: 1 if name == "three_augment" else 2]]
    policies["crop_flip + erasing 0.25"] = ["augment.crop_padding=1", "augment.erasing.prob=0.25"]
    policies["crop_flip + mixup 0.2"] = ["augment.crop_padding=1", "augment.mixup.alpha=0.2"]
    policies["crop_flip + CutMix"] = ["augment.crop_padding=1", "augment.cutmix.alpha=1"]
    views = [*VIEWS, "augment.crop_padding=1"]
    parts: Rows = {"randaugment": views}
    for part in (
        "schedule.ema=0.99",
        "schedule.repeated_augmentation=3",
        "schedule.label_smoothing=0.1",
        "ce.kind=bce ce.sum=true",
        "schedule.accumulate=4",
    ):
        parts[part] = [*views, *part.split()]
    return {"policies": policies, "parts": parts, "cycle": cycles(views)}


def cifar_tables() -> dict[str, Rows]:
    """Table → name of a line → its settings, for 32×32 photographs."""
    return {"cycle": cycles(VIEWS)}


def cycles(words: Sequence[str]) -> Rows:
    """Numbers of views."""
    rows = {"no cycle": [*words]}
    return rows | {f"cycle={n}": [*words, f"augment.cycle={n}"] for n in (1, 4)}


def main() -> None:
    arguments = parse()
    tables, words = digits_tables(), list(DIGITS)
    if arguments.task == "cifar100":
        tables = cifar_tables()
        words = [
            *CIFAR,
            f"dataset.root={arguments.data}",
            f"teacher.checkpoint={arguments.teacher}",
        ]
        words += [f"transfer.fraction={arguments.fraction}"]
    for table in arguments.table or tables:
        baseline = ["alone=false"] if table == "cycle" else []
        rows = {
            name: run([*words, *row, *baseline, *arguments.words], arguments)
            for name, row in tables[table].items()
        }
        print(f"\n{arguments.task}, {table}\n\n{markdown(rows)}", flush=True)


def parse() -> argparse.Namespace:
    parser = sweep_tables.parser(__doc__)
    parser.add_argument("task", choices=("digits", "cifar100"))
    parser.add_argument("table", nargs="*", help="policies, parts, cycle; all")
    parser.add_argument("--data", type=Path, help="folder of CIFAR-100")
    parser.add_argument("--teacher", type=Path, help="weights of its ResNet-56")
    parser.add_argument("--fraction", type=float, default=0.1, help="of CIFAR-100's images")
    parser.add_argument("--words", nargs="*", default=[], help="more settings of kdrun distill")
    return sweep_tables.parse(parser)


def run(words: Sequence[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The results of one line, a seed each; from DIR/recipes.json if it is finished."""
    memory = arguments.out / "recipes.json"
    finished = json.loads(memory.read_text()) if memory.exists() else {}
    command = ["distill", "-m", *words, sweep_tables.seed_word(arguments.seeds), "threads=1"]
    command.append(f"output_root={arguments.out}")
    key = " ".join(command)
    if key not in finished:
        sweep_tables.require(*command)
        newest = max((arguments.out / "sweeps").iterdir())
        with open(newest / "summary.csv", newline="") as file:
            runs = [Path(row["run"]) for row in csv.DictReader(file)]
        results = [json.loads((run / "result.json").read_text()) for run in runs]
        results.sort(key=lambda result: result["seed"])
        assert len(results) == arguments.seeds, f"{len(results)} runs finished: see {arguments.out}"
        finished[key] = [figures(result) for result in results]
        partial = memory.with_suffix(".partial")
        partial.write_text(json.dumps(finished, indent=1))
        os.replace(partial, memory)
    return list(finished[key])


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """What the tables need of a result."""
    student, alone = result["student"], result.get("alone")
    cache = (result.get("teacher_cache") or [None])[0]
    return {
        "student": student["test"]["top1"],
        "baseline": alone["test"]["top1"] if alone else None,
        "ema": student["ema"]["test"]["top1"] if student.get("ema") else None,
        "seconds": result["time"]["seconds"],
        "computed": cache["computed"] if cache else None,
    }


def markdown(rows: dict[str, list[dict[str, Any]]]) -> str:
    """One line per setting."""
    lines = ["| setting | baseline | student | gain | difference | EMA | n | s | teacher images |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    first = next(iter(rows.values()))
    for name, runs in rows.items():
        student = [run["student"] for run in runs]
        baseline = [run["baseline"] for run in runs if run["baseline"] is not None]
        ema = [run["ema"] for run in runs if run["ema"] is not None]
        seconds = statistics.median(run["seconds"] for run in runs)
        computed = {run["computed"] for run in runs} - {None}
        cells = [
            spread(baseline),
            spread(student),
            spread([a - b for a, b in zip(student, baseline, strict=False)], "+"),
            "" if runs is first else spread(differences(student, first), "+"),
            spread(ema),
            str(len(runs)),
            f"{seconds:.0f}",
            " ".join(f"{number:,}" for number in sorted(computed)),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(student: Iterable[float], first: list[dict[str, Any]]) -> list[float]:
    return [value - run["student"] for value, run in zip(student, first, strict=False)]


if __name__ == "__main__":
    main()
