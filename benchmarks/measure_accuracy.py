"""The same short training with every switch that makes it faster, three seeds each.

    python benchmarks/measure_accuracy.py [words of kdrun distill]

ResNet-20, trained once for five epochs, teaches ResNet-8 for ten, on the digits that come with
kdrun; `dataset=imagefolder dataset.root=FOLDER` takes others. The table says what each switch costs
in accuracy: a switch is harmless when its mean lies within the spread of the seeds.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SWITCHES = {
    "none": [],
    "teacher.fold": ["teacher.fold=true"],
    "compile": ["compile=true", "teacher.fold=true"],
    "teacher in bf16": [
        "teacher.precision=bf16",
        "teacher.fold=true",
        "teacher.compile=true",
    ],
    "all in bf16": ["precision=bf16", "compile=true", "teacher.fold=true"],
    "remembered in float16": ["teacher.cache=logits", "teacher.cache_dtype=float16"],
    "all of these": [
        "precision=bf16",
        "compile=true",
        "teacher.fold=true",
        "teacher.cache=logits",
        "teacher.cache_dtype=float16",
    ],
    "gang=true": ["gang=true"],
}
RECIPE = [
    "dataset=digits",
    "dataset.augment.crop_padding=1",
    "teacher=resnet20",
    "student=resnet8",
    "teacher.schedule.epochs=5",
    "epochs=10",
    "seed=0,1,2",
    "ui=quiet",
]


def results(folder: Path) -> list[dict[str, object]]:
    """What each finished run found, by seed."""
    files = folder.glob("distill/*/*/*/result.json")
    found = [json.loads(path.read_text()) for path in files]
    return sorted((one for one in found if one["status"] == "completed"), key=lambda r: r["seed"])


def mean_and_deviation(values: list[float]) -> str:
    """`49.40 ± 1.06`."""
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def main() -> None:
    """Run the sweeps one after another and print the table."""
    more = sys.argv[1:]
    if more and "=" not in more[0]:
        raise SystemExit(__doc__)
    given = {word.split("=")[0] for word in more}
    recipe = [word for word in RECIPE if word.split("=")[0] not in given]
    lines, plain = [], None
    with tempfile.TemporaryDirectory() as top:
        for name, switches in SWITCHES.items():
            root = Path(top) / name.replace(" ", "_").replace("=", "_")
            root.mkdir()
            (root / "teachers").symlink_to(Path(top) / "teachers")
            (Path(top) / "teachers").mkdir(exist_ok=True)
            command = ["kdrun", "distill", "-m", *recipe, *switches, *more]
            print(" ".join(command), flush=True)
            python = [sys.executable, "-m", *command, f"output_root={root}"]
            subprocess.run(python, check=True)
            runs = results(root)
            tops = [run["student"]["test"]["top1"] for run in runs]  # type: ignore[index]
            vals = [run["student"]["best_val"]["val_top1"] for run in runs]  # type: ignore[index]
            same = "-" if plain is None else "yes" if tops == plain else "no"
            plain = tops if plain is None else plain
            lines.append(
                f"| {name} | {mean_and_deviation(vals)} | {mean_and_deviation(tops)} | {same} |"
            )
            print(lines[-1], flush=True)
    print("\n| switches | best validation | test, last epoch | same figures |")
    print("|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
