"""Every loss on one pair: one table, ranked by validation accuracy, with the cost of a step.

    python benchmarks/measure_methods.py --out DIR                                  digits
    python benchmarks/measure_methods.py --out DIR --cifar100 ROOT --teacher FILE   CIFAR-100
    python benchmarks/measure_methods.py --out DIR ... --seeds 3 --loss kd sp at    some losses only
    python benchmarks/measure_methods.py --out DIR --cost                           and the cost
    python benchmarks/measure_methods.py --out DIR --auto                           weight=auto

Each loss has its default weight, or with `--auto` the measured one (docs/loss_weights.md). The
losses train in lockstep and share the teacher's passes; finished runs in DIR are reused. `--cost`
then measures each loss alone with `kdrun benchmark`: the median time of a training step in ms,
teacher included, and the peak memory of the process in MiB. Run it on an idle machine. CIFAR-100 is
a fifth of the training images in four views each, 30 epochs, RepDistiller's published ResNet-56 and
a ResNet-8, in bfloat16 if this machine computes it faster. The column `published` has the figures
of resnet56 → resnet20; below the table is Kendall's τ of both orders (`published_order.py`).
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sweep_tables
from published_order import order, published_figures
from sweep_tables import kdrun, spread

from kdrun.cli.config_groups import list_groups

DIGITS = ["dataset=digits", "teacher=cnn_large", "student=cnn_tiny", "epochs=15"]
CIFAR = ["dataset=cifar100", "dataset.download=false", "teacher=resnet56", "student=resnet8"]
CIFAR += ["teacher.mean=[0.5071,0.4867,0.4408]", "teacher.std=[0.2675,0.2565,0.2761]"]
CIFAR += ["teacher.cache=embedding", "teacher.fold=true", "precision=auto", "compile=true"]
CIFAR += ["transfer.fraction=0.2", "val_fraction=0.02", "augment.cycle=4"]
CIFAR += ["schedule=cifar240", "epochs=30", "schedule.milestones=[19,22,26]"]
PUBLISHED_EPOCHS = 240


def shorter(epochs: int) -> dict[str, list[str]]:
    """Settings of single losses: warm-up and pre-training in proportion to the training."""

    def part(published: int) -> int:
        return max(1, round(published * epochs / PUBLISHED_EPOCHS))

    return {
        "dkd": [f"loss.dkd.warmup_epochs={part(20)}"],
        "reviewkd": [f"loss.reviewkd.warmup_epochs={part(20)}"],
        "ctkd": [f"loss.ctkd.lambda_epochs={part(10)}"],
        "ab": [f"loss.ab.pretrain_epochs={part(30)}"],
        "fsp": [f"loss.fsp.pretrain_epochs={part(30)}", "loss.fsp.connectors=true"],
        "ft": [f"loss.ft.pretrain_epochs={part(30)}"],
    }


def main() -> None:
    arguments = parse()
    words, settings, published = DIGITS, shorter(epochs=15), published_figures()
    if arguments.cifar100:
        words, settings = [*CIFAR], shorter(epochs=30)
        settings["dkd"] += ["loss.dkd.beta=2"]
        words += [f"dataset.root={arguments.cifar100}"]
        words += [f"teacher.checkpoint={arguments.teacher}"] if arguments.teacher else []
    words = [*words, *arguments.words, f"output_root={arguments.out}", "threads=1"]
    losses = arguments.loss or [name for name in list_groups()["loss"] if name != "ce"]
    seeds = range(arguments.seeds)
    refused = {}

    def runs(name: str) -> dict[int, dict[str, Any]]:
        return results(arguments.out, name, arguments.auto)

    for name in losses:
        if arguments.auto:
            settings[name] = [*settings.get(name, []), f"loss.{name}.weight=auto"]
        if len(runs(name)) < len(seeds):
            reason = kdrun("distill", *words, f"loss={name}", *settings.get(name, []), "--dry-run")
            refused |= {name: reason} if reason else {}
    for group in sweeps([name for name in losses if name not in refused], settings):
        if any(len(runs(name)) < len(seeds) for name in group):
            jobs = [f"loss={','.join(group)}", sweep_tables.seed_word(arguments.seeds), "gang=true"]
            kdrun("distill", "-m", *words, *jobs, *settings.get(group[0], []))
    rows = []
    for name in losses:
        row = {"loss": name, "refused": refused.get(name), "runs": runs(name)}
        row["published"] = published.get(name)
        if arguments.cost and row["runs"]:
            row |= cost([*words, f"loss={name}", *settings.get(name, [])], arguments.out, name)
        rows.append(row)
    print(table(rows))
    tests = {
        row["loss"]: [run["student"]["test"]["top1"] for run in row["runs"].values()]
        for row in rows
    }
    print(order(tests, published))


def sweeps(losses: list[str], settings: dict[str, list[str]]) -> list[list[str]]:
    """Losses that train in lockstep: those without settings of their own, and each other one."""
    plain = [name for name in losses if name not in settings]
    return [*([plain] if plain else []), *([name] for name in losses if name in settings)]


def parse() -> argparse.Namespace:
    parser = sweep_tables.parser(__doc__)
    parser.add_argument("--cifar100", type=Path, help="folder of CIFAR-100")
    parser.add_argument("--teacher", type=Path, help="weights of its ResNet-56")
    parser.add_argument("--loss", nargs="*", help="these losses only")
    parser.add_argument("--auto", action="store_true", help="measured weights")
    parser.add_argument("--cost", action="store_true", help="also measure time and memory")
    parser.add_argument("words", nargs="*", help="further settings, as for kdrun distill")
    return sweep_tables.parse(parser)


def results(root: Path, name: str, auto: bool = False) -> dict[int, dict[str, Any]]:
    """Seed → newest result of a distillation with exactly this loss.

    auto: only those with measured weights; else only those without.
    """
    found: dict[int, dict[str, Any]] = {}
    paths = (root / "distill").glob(f"*/*-{name}/*/result.json")
    for path in sorted(paths, key=lambda path: path.stat().st_mtime):
        result = json.loads(path.read_text())
        if result["status"] == "completed" and ("auto_weights" in result) == auto:
            found[result["seed"]] = {**result, "folder": path.parent}
    return found


def cost(words: Sequence[str], root: Path, name: str) -> dict[str, float]:
    """Milliseconds of a training step (median) and peak memory of its process in MiB."""
    files = root / "benchmark"
    if not list(files.glob(f"*/*-{name}/*/benchmark.json")):
        kdrun("benchmark", *words, "compare=[]", "rounds=5", "steps=20")
    newest = max(files.glob(f"*/*-{name}/*/benchmark.json"))
    measured = json.loads(newest.read_text())
    step = measured["variants"]["this configuration"]["step_ms"]["median"]
    return {"ms": float(step), "mib": float(measured["memory"]["process_peak_mib"])}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, best validation accuracy first; refused losses at the end."""
    lines = ["| loss | validation top-1 % | test top-1 % | gain | n | published | ms | MiB |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    measured: dict[str, tuple[float, str]] = {}
    for row in rows:
        runs = list(row["runs"].values())
        if not runs:
            continue
        columns = defaultdict(list)
        for run in runs:
            columns["val"].append(last_val(run))
            columns["test"].append(run["student"]["test"]["top1"])
            columns["gain"].append(run["gain"])
        cells = [spread(columns[key]) for key in ("val", "test", "gain")]
        mib = f"{row['mib']:.0f}" if "mib" in row else ""
        ms = f"{row['ms']:.1f}" if "ms" in row else ""
        theirs = f"{row['published']:.2f}" if row["published"] else ""
        cells += [str(len(runs)), theirs, ms, mib]
        line = f"| {row['loss']} | {' | '.join(cells)} |"
        measured[row["loss"]] = (statistics.mean(columns["val"]), line)
    lines += [line for _, line in sorted(measured.values(), reverse=True)]
    lines += [f"\nNot run: `{r['loss']}`: {r['refused']}" for r in rows if not r["runs"]]
    return "\n".join(lines) + "\n"


def last_val(run: dict[str, Any]) -> float:
    """Validation accuracy of the last epoch, percent."""
    rows = [json.loads(line) for line in (run["folder"] / "metrics.jsonl").open()]
    return float(rows[-1]["val/top1_percent"])


if __name__ == "__main__":
    main()
