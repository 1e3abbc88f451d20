"""A student cut from its teacher, the same one from random weights, and a hand-designed one.

    python benchmarks/measure_pruned.py --out DIR                                  digits, minutes
    python benchmarks/measure_pruned.py --out DIR --cifar100 ROOT --teacher FILE   CIFAR-100, 0.5 h

The hand-designed student is a shallower ResNet whose widths are chosen so that its FLOPs are within
5 % of the pruned student's. All three are distilled with the same teacher, losses, images, schedule
and seeds. Finished runs are reused.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import sweep_tables
import torch
from sweep_tables import spread

from kdrun.models.measure import count_flops
from kdrun.models.pruned import pruned_network
from kdrun.models.resnet import ResNet

TOLERANCE = 0.05
DIGITS = ["dataset=digits", "teacher=resnet20", "epochs=20", "batch_size=64"]
CIFAR = ["dataset=cifar100", "dataset.download=false", "teacher=resnet56"]
# A twentieth of the images in two views each: the teacher runs twice per image.
SHORT = ["transfer.fraction=0.05", "val_fraction=0.02", "augment.cycle=2", "schedule=cosine"]
SHORT += ["schedule.warmup_epochs=0", "lr=0.05", "batch_size=64", "epochs=6", "gang=true"]
# Per data set: classes, image, depth of the teacher and of the hand-designed student.
SHAPES = {"digits": (10, (1, 8, 8), 20, 8), "cifar100": (100, (3, 32, 32), 56, 20)}
TEACHER_WIDTHS = (16, 16, 32, 64)
ROWS = {
    "teacher": "pruned, the teacher's weights",
    "random": "pruned, random weights",
    "designed": "hand-designed",
}


def main() -> None:
    arguments = parse()
    dataset = "cifar100" if arguments.cifar100 else "digits"
    words = DIGITS
    if arguments.cifar100:
        words = [*CIFAR, f"dataset.root={arguments.cifar100}", *SHORT]
        words += [f"teacher.checkpoint={arguments.teacher}"] if arguments.teacher else []
    words = [*words, "alone=false", f"output_root={arguments.out}", "threads=1", *arguments.words]
    seeds = sweep_tables.seed_word(arguments.seeds)
    depth, widths = equal_flops(dataset, arguments.ratio)
    cut = ["student=pruned", f"student.ratio={arguments.ratio}", "student.init=teacher,random"]
    sweep_tables.require("distill", "-m", *words, *cut, seeds)
    designed = ["student=resnet20", f"student.depth={depth}", f"student.widths={widths}"]
    sweep_tables.require("distill", "-m", *words, *designed, seeds)
    text = table(arguments.out / "distill" / dataset)
    (arguments.out / f"pruned-{dataset}.md").write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    parser = sweep_tables.parser(__doc__)
    parser.add_argument("--cifar100", type=Path, help="folder of CIFAR-100")
    parser.add_argument("--teacher", type=Path, help="weights of its ResNet-56")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the channels removed")
    parser.add_argument("words", nargs="*", help="further settings, as for kdrun distill")
    return sweep_tables.parse(parser)


def equal_flops(dataset: str, ratio: float) -> tuple[int, str]:
    """(depth, widths) of the ResNet closest to the pruned teacher in FLOPs."""
    classes, image, teacher_depth, depth = SHAPES[dataset]
    sample = torch.zeros(1, *image)
    network = {
        "_target_": "kdrun.models.resnet.ResNet",
        "depth": teacher_depth,
        "widths": list(TEACHER_WIDTHS),
    }
    pruned = pruned_network(classes, image[0], image[1:], network=network, ratio=ratio)
    wanted = count_flops(pruned, sample)

    def distance(widths: list[int]) -> float:
        designed = ResNet(classes, image[0], depth=depth, widths=widths)
        return abs(count_flops(designed, sample) / wanted - 1)

    scales = [step / 4 for step in range(16, 96)]
    widths = min(([round(s), round(s), round(2 * s), round(4 * s)] for s in scales), key=distance)
    assert distance(widths) < TOLERANCE
    return depth, json.dumps(widths).replace(" ", "")


def table(root: Path) -> str:
    """Markdown: a row per kind of student."""
    runs: dict[str, dict[int, dict[str, Any]]] = {kind: {} for kind in ROWS}
    for path in sorted(root.glob("*/*/result.json"), key=lambda path: path.stat().st_mtime):
        result = json.loads(path.read_text())
        if result["status"] == "completed":
            settings = (path.parent / "config.yaml").read_text()
            init = "random" if "init: random" in settings else "teacher"
            kind = init if result["student"]["name"] == "pruned" else "designed"
            runs[kind][result["seed"]] = result
    lines = ["| student | MFLOPs | parameters | validation top-1 % | test top-1 % | n |"]
    lines += ["|---|---|---|---|---|---|"]
    for kind, by_seed in runs.items():
        students = [result["student"] for result in by_seed.values()]
        if not students:
            continue
        size = f"{students[0]['flops'] / 1e6:.2f} | {students[0]['params']:,}"
        val = spread([student["best_val"]["val_top1"] for student in students])
        test = spread([student["test"]["top1"] for student in students])
        lines.append(f"| {ROWS[kind]} | {size} | {val} | {test} | {len(students)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
