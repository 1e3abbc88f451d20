"""`loss.ID.weight=auto` against the published weight: four data sets, three seeds, seven losses.

    python benchmarks/compare_weights.py data --weights resnet56.pth --out outputs

`data` holds MNIST, CIFAR-100 and ten textures of DTD as class folders (`dtd10`); `resnet56.pth` is
RepDistiller's teacher. Parts of the data and short schedules, so that it runs on a CPU: of
CIFAR-100 the first twenty classes, 60 training and 30 test images each. Every row is one
`kdrun distill -m` command, which is printed; a repetition skips finished runs. Prints the table:
test top-1 of the last epoch in percent, mean ± standard deviation.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from sweep_tables import spread

from kdrun.cli.main import run

PUBLISHED = {"at": 1000, "sp": 3000, "fitnet": 100, "pkt": 30000, "rkd": 1, "crd": 0.8, "vid": 1}
COMMON = ["threads=1", "ui=quiet", "gang=true", "seed=0,1,2"]
CLASSES, TRAIN, TEST = 20, 60, 30  # of CIFAR-100


def tasks(root: Path, weights: Path, out: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Data set → (the words that describe its runs, the losses)."""
    return {
        "digits": (
            ["dataset=digits", "teacher.schedule.epochs=10", "epochs=10"],
            list(PUBLISHED),
        ),
        "ten textures": (
            [
                "dataset=imagefolder",
                f"dataset.root={root}/dtd10",
                "dataset.image_size=32",
                "teacher.schedule.epochs=10",
                "epochs=10",
            ],
            ["at", "sp", "rkd", "pkt", "fitnet"],
        ),
        "MNIST, 2 %": (
            [
                "dataset=mnist",
                f"dataset.root={root}",
                "teacher.schedule.steps=200",
                "transfer.fraction=0.02",
                "epochs=8",
            ],
            ["at", "sp", "rkd", "pkt"],
        ),
        "CIFAR-100, 20 classes": (
            [
                "dataset=imagefolder",
                f"dataset.root={out}/cifar100_part",
                "dataset.augment.crop_padding=4",
                "dataset.augment.flip=true",
                "teacher=resnet56",
                f"teacher.checkpoint={weights}",
                f"teacher.classes={list(range(CLASSES))}".replace(" ", ""),
                "teacher.mean=[0.5071,0.4867,0.4408]",
                "teacher.std=[0.2675,0.2565,0.2761]",
                "student=resnet8",
                "epochs=5",
            ],
            ["sp", "rkd", "at"],
        ),
    }


def main() -> None:
    """Run everything that is not finished, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    parser.add_argument("--only", nargs="*", help="digits, 'ten textures', MNIST, CIFAR-100")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    link_part(options.root / "cifar100", options.out / "cifar100_part")
    rows = []
    for name, (words, losses) in tasks(options.root, options.weights, options.out).items():
        if options.only and name.split(",")[0] not in options.only:
            continue
        out = options.out / name.split(",")[0].replace(" ", "_")
        for loss in losses:
            weight = f"loss.{loss}.weight={PUBLISHED[loss]},auto"
            command = ["distill", "-m", *words, f"loss={loss}", weight, *COMMON]
            if not options.table:
                print("kdrun", *command, flush=True)
                run([*command, f"output_root={out}"])
            rows.append(row(name, loss, out))
    print(
        "| data | loss | baseline | published weight | top-1 | measured weights | top-1 | "
        "difference |\n|---|---|---|---|---|---|---|---|"
    )
    print("\n".join(rows))


def link_part(source: Path, target: Path) -> None:
    """Class folders with links to the first images of the first classes."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        for folder in sorted((source / split).iterdir())[:CLASSES]:
            (target / split / folder.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(folder.iterdir())[:count]:
                link = target / split / folder.name / image.name
                if not link.exists():
                    link.hardlink_to(image)


def row(name: str, loss: str, out: Path) -> str:
    """A line of the table, from the runs of one loss on one data set."""
    fixed, measured = [], []
    for path in sorted(out.glob(f"distill/*/*-{loss}/*/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["status"] == "completed":
            (measured if "auto_weights" in result else fixed).append(result)
    if not fixed or not measured:
        return f"| {name} | {loss} | not finished | | | | | |"
    weights = ", ".join(f"{r['auto_weights'][loss]['weight']:.3g}" for r in measured)
    baseline = spread(r["alone"]["test"]["top1"] for r in fixed)
    difference = mean(measured) - mean(fixed)
    return (
        f"| {name} | {loss} | {baseline} | {PUBLISHED[loss]} | {spread(map(top1, fixed))} | "
        f"{weights} | {spread(map(top1, measured))} | {difference:+.2f} |"
    )


def top1(result: dict[str, Any]) -> float:
    """Test top-1 of the student after the last epoch, percent."""
    return float(result["student"]["test"]["top1"])


def mean(results: list[dict[str, Any]]) -> float:
    """Mean test top-1."""
    return statistics.fmean(map(top1, results))


if __name__ == "__main__":
    main()
