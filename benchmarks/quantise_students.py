"""Does int8-aware training pay? Full precision, post-training and int8-aware students side by side.

    python benchmarks/quantise_students.py --out DIR                                  digits
    python benchmarks/quantise_students.py --out DIR --mnist ROOT                     and MNIST
    python benchmarks/quantise_students.py --out DIR --cifar100 ROOT --weights DIR    and CIFAR-100

Each student trains alone and distilled, in full precision, int8 and w4a8 (`student.quantize`);
every network is exported, the full-precision ones also as post-training int8 and w4a8. The table
shows the exported files in ONNX Runtime: test top-1 (mean ± standard deviation of the seeds), the
share of the teacher's answers, bytes, and the latency of one image (medians of interleaved rounds,
first seed, one thread). On CIFAR-100, the published weights of RepDistiller are fine-tuned for
`--steps` steps on a tenth of the training images, with a ResNet-56 as the teacher; the validation
images choose each row's learning rate on the first seed. Finished runs and files in DIR are reused;
`kdrun report DIR` shows them, too.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import onnxruntime
import sweep_tables
import torch
import yaml
from sweep_tables import kdrun, require, spread

from kdrun.config.schema import ExportConfig, RuntimeConfig
from kdrun.deploy.export_source import open_source
from kdrun.distillation.session import open_session

FULL, KINDS = "null", ("null", "int8", "w4a8")
WHAT = ("baseline", "distilled")
ROUNDS, CALLS = 30, 20
CIFAR = ["teacher=resnet56", "transfer.fraction=0.1"]
CIFAR += ["dataset.augment.crop_padding=0", "dataset.augment.flip=false", "teacher.cache=logits"]
CIFAR += ["val_fraction=0.04", "schedule=cosine", "schedule.warmup_epochs=0", "batch_size=64"]
MNIST = ["dataset=mnist", "dataset.download=false", "transfer.fraction=0.1", "epochs=15"]
MNIST += ["teacher.schedule.epochs=3"]


@dataclass
class Case:
    """One pair.

    name: file name of its results. words: of `kdrun distill`. rates: learning rates to choose from;
    empty: the default. bare: words that describe a teacher file without a card to `kdrun export`.
    """

    name: str
    title: str
    words: list[str]
    rates: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A row of the table. kind: of the training. file: what is exported; None: full precision."""

    name: str
    kind: str
    file: str | None
    distilled: bool


def rows() -> list[Row]:
    """Two networks in full precision, quantised after the training, and trained for it."""
    table = []
    for kind, file, label in (
        (FULL, None, "fp32"),
        (FULL, "int8", "post-training int8"),
        ("int8", "int8", "int8-aware"),
        (FULL, "w4a8", "post-training w4a8"),
        ("w4a8", "w4a8", "w4a8-aware"),
    ):
        table += [Row(f"{label} {what}", kind, file, what == "distilled") for what in WHAT]
    return table


def main() -> None:
    arguments = parse()
    for case in cases(arguments):
        print(f"\n{case.title}\n\n{measure(case, arguments)}", flush=True)


def parse() -> argparse.Namespace:
    parser = sweep_tables.parser(__doc__)
    parser.add_argument("--mnist", type=Path, help="folder of MNIST")
    parser.add_argument("--cifar100", type=Path, help="folder of CIFAR-100")
    parser.add_argument("--weights", type=Path, help="folder of RepDistiller's weights (.pth)")
    parser.add_argument("--students", nargs="*", default=["mobilenetv2", "resnet20"])
    parser.add_argument("--rates", nargs="*", default=["0.001", "0.01"])
    parser.add_argument("--steps", type=int, default=300, help="of the fine-tuning on CIFAR-100")
    parser.add_argument("--skip-digits", action="store_true")
    parser.add_argument("words", nargs="*", help="further settings, as for kdrun distill")
    return sweep_tables.parse(parser)


def cases(arguments: argparse.Namespace) -> list[Case]:
    """The pairs that the arguments ask for."""
    common = [*arguments.words, f"output_root={arguments.out}", "threads=1"]
    small = ["teacher=cnn_large", "student=cnn_tiny"]
    found = []
    if not arguments.skip_digits:
        words = ["dataset=digits", *small, *common]
        found.append(Case("digits", "digits: cnn_large → cnn_tiny", words))
    if arguments.mnist:
        words = [*MNIST, f"dataset.root={arguments.mnist}", *small, *common]
        found.append(Case("mnist", "MNIST: cnn_large → cnn_tiny", words))
    for student in arguments.students if arguments.cifar100 else ():
        data = ["dataset=cifar100", "dataset.download=false", f"dataset.root={arguments.cifar100}"]
        words = [*data, *CIFAR, f"teacher.checkpoint={arguments.weights / 'resnet56.pth'}"]
        words += [f"student={student}", f"student.checkpoint={arguments.weights / student}.pth"]
        words += [f"schedule.steps={arguments.steps}", *common]
        bare = ["teacher=resnet56", *data]
        title = f"CIFAR-100: resnet56 → {student}"
        found.append(Case(f"cifar100-{student}", title, words, arguments.rates, bare))
    return found


def measure(case: Case, arguments: argparse.Namespace) -> str:
    """Train, export and time what is missing; returns the table."""
    rates = choose_rates(case)
    seeds = range(arguments.seeds)
    runs = {}
    for kind in KINDS:
        words = [*case.words, f"student.quantize={kind}", *rates[kind]]
        require("distill", "-m", *words, sweep_tables.seed_word(arguments.seeds))
        runs[kind] = [find_runs(words, seed)[-1] for seed in seeds]
    files = {row: [export(folder(run, row), row) for run in runs[row.kind]] for row in rows()}
    test = TestSet(case, arguments.out, runs[FULL][0])
    milliseconds = latencies([paths[0] for paths in files.values()], test.images[:1])
    lines = ["| files | test top-1 % | teacher's answer % | KB | ms |", "|---|---|---|---|---|"]
    results = []
    for (row, paths), ms in zip(files.items(), milliseconds, strict=True):
        measured = [test.measure(path) for path in paths]
        top1, same = ([values[key] for values in measured] for key in ("top1", "agreement"))
        kilobytes = paths[0].stat().st_size / 1e3
        cells = [spread(top1), spread(same), f"{kilobytes:.1f}", f"{ms:.3f}"]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
        results.append({"row": row.name, "measured": measured, "KB": kilobytes, "ms": ms})
    values = {"case": case.title, "rates": rates, "images": len(test.images), "rows": results}
    (arguments.out / f"{case.name}.json").write_text(json.dumps(values, indent=2))
    chosen = [f"{kind}: {' '.join(words)}" for kind, words in rates.items() if words]
    note = f"n={len(seeds)}, {len(test.images):,} test images"
    return "\n".join([*lines, "", "; ".join([note, *chosen])])


def choose_rates(case: Case) -> dict[str, list[str]]:
    """For each kind, the rate with the best validation top-1 of baseline and student, seed 0.

    A rate with which the training diverges is not chosen.
    """
    chosen: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind in KINDS if case.rates else ():
        words = [*case.words, f"student.quantize={kind}"]
        failure = kdrun("distill", "-m", *words, "seed=0", f"lr={','.join(case.rates)}")
        scores = {}
        for rate in case.rates:
            for run in find_runs([*words, f"lr={rate}"], 0)[-1:]:
                scores[rate] = sum(validation(folder(run, row)) for row in rows()[:2])
        if not scores:
            sys.exit(failure)
        if failure:
            print(failure, flush=True)
        chosen[kind] = [f"lr={max(scores, key=lambda rate: scores[rate])}"]
    return chosen


def find_runs(words: Sequence[str], seed: int) -> list[Path]:
    """The finished runs with these settings, by their commands' words; the newest is the last."""
    settings = dict(word.split("=", 1) for word in [*words, f"seed={seed}"])
    root = Path(settings.pop("output_root"))
    wanted = {key: yaml.safe_load(value) for key, value in settings.items()}
    found = []
    for path in (root / "distill").glob("*/*-kd/*/result.json"):
        config = yaml.safe_load((path.parent / "config.yaml").read_text())
        if json.loads(path.read_text())["status"] == "completed" and matches(config, wanted):
            found.append(path.parent)
    return sorted(found, key=lambda path: path.name)


def matches(config: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether a run's configuration has these values; groups are compared by name."""
    for name, value in wanted.items():
        stored: Any = config
        for key in name.split("."):
            stored = stored.get(key) if isinstance(stored, dict) else None
        if isinstance(stored, dict):
            stored = stored.get("name", value)
        if stored is not None and stored != value and str(stored) != str(value):
            return False
        if stored is None and name == "student.quantize" and value is not None:
            return False
    return True


def folder(run: Path, row: Row) -> Path:
    """The run's folder, or that of its baseline."""
    if row.distilled:
        return run
    return Path(json.loads((run / "result.json").read_text())["alone"]["run"])


def validation(run: Path) -> float:
    """Validation accuracy of the last epoch, percent."""
    measured = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    return float(measured[-1]["val/top1_percent"])


def export(run: Path, row: Row) -> Path:
    """The exported file of a run."""
    quantize = [f"quantize={row.file}"] if row.file else []
    path = run / "export" / f"student{f'.{row.file}' if row.file else ''}.onnx"
    if not path.exists():
        tolerance = ["tolerance=100"] if row.file and row.kind == FULL else []
        require("export", f"run={run}", *quantize, *tolerance, "latency=false", "threads=1")
    return path


class TestSet:
    """The test images as they are stored, their labels, and the teacher's answers."""

    def __init__(self, case: Case, out: Path, run: Path) -> None:
        runtime = RuntimeConfig(device="cpu", threads=1, output_root=str(out), ui="quiet")
        with open_session(runtime) as session:
            source = open_source(ExportConfig(run=str(run), runtime=runtime), session)
            self.images = source.test.gather(torch.arange(len(source.test))).numpy()
            self.labels = source.test.targets.numpy()
        teacher = out / "exported" / case.name / "teacher.onnx"
        if not teacher.exists():
            checkpoint = json.loads((run / "result.json").read_text())["teachers"][0]["checkpoint"]
            words = [f"run={checkpoint}", *case.bare, f"out={teacher.parent}"]
            require("export", *words, "latency=false", f"output_root={out}", "threads=1")
            next(teacher.parent.glob("*.onnx")).rename(teacher)
        self.teacher = self.answers(teacher)

    def answers(self, path: Path) -> Any:
        """Predicted classes `[N]`."""
        session = open_file(path)
        batches = numpy.array_split(self.images, max(1, len(self.images) // 256))
        logits = [session.run(None, {"images": batch})[0] for batch in batches]
        return numpy.concatenate(logits).argmax(axis=1)

    def measure(self, path: Path) -> dict[str, float]:
        """Accuracy, and the share of the teacher's answers, in percent."""
        answers = self.answers(path)
        return {
            "top1": float(100 * (answers == self.labels).mean()),
            "agreement": float(100 * (answers == self.teacher).mean()),
        }


def open_file(path: Path) -> Any:
    """ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def latencies(paths: Sequence[Path], image: Any) -> list[float]:
    """Milliseconds for one image: medians over rounds that take the files in turn."""
    sessions = [open_file(path) for path in paths]
    times: list[list[float]] = [[] for _ in paths]
    for _ in range(ROUNDS):
        for number, session in enumerate(sessions):
            session.run(None, {"images": image})
            started = time.perf_counter()
            for _ in range(CALLS):
                session.run(None, {"images": image})
            times[number].append(1000 * (time.perf_counter() - started) / CALLS)
    return [statistics.median(values) for values in times]


if __name__ == "__main__":
    main()
