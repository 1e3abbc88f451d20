"""The list of metrics: every table, ranking, CSV file and comparison takes its columns from here.

To add a metric, add a line to `METRICS` and write its value into `result.json` or `metrics.jsonl`.
A name has one meaning in all tables and includes the unit.
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from kdrun.report.records import Run, number
from kdrun.report.statistics import Mean
from kdrun.runs.result import Metrics, RunResult
from kdrun.ui import format

# The tables: a sweep's ranking; a report's main table, and its teachers and evaluations;
# kdrun compare; report-runs.csv.
RANKING, REPORT, LISTING, COMPARE, RUNS = "ranking", "report", "listing", "compare", "runs"
EVERYWHERE = (RANKING, REPORT, COMPARE, RUNS)
FILES = (COMPARE, RUNS)
VAL = "val/top1_percent"


@dataclass(frozen=True)
class Metric:
    """A column. read: the value of one run; None where it was not measured.

    name: the column in every CSV file, with its unit. label: its heading in a table of distilled
    students (the name, unless given). spread: whether a report shows mean ± standard deviation.
    """

    name: str
    about: str
    read: Callable[[Run], float | None]
    show: Callable[[float], str] = format.percent
    better: Literal["higher", "lower", ""] = "higher"
    tables: Collection[str] = EVERYWHERE
    spread: bool = True
    label: str = ""

    @property
    def heading(self) -> str:
        """Its heading in a table of distilled students."""
        return self.label or self.name

    @property
    def option(self) -> str:
        """Its name as it is typed: `test_top1` of `test top-1 %`."""
        words = self.name.removesuffix(" %").replace("top-1", "top1").replace("top-5", "top5")
        return re.sub(r"[^a-z0-9]+", "_", words.lower())

    def text(self, value: float | None) -> str:
        """The value as shown; empty where there is none."""
        return "" if value is None else self.show(value)

    @property
    def title(self) -> str:
        """The name without its unit."""
        return self.name.removesuffix(" %")

    def with_unit(self, value: float | None) -> str:
        """`93.10 %`; a dash where there is none."""
        if value is None:
            return "-"
        return f"{self.show(value)}{' %' if self.name.endswith(' %') else ''}"

    def means(self, value: Mean | None) -> str:
        """`97.21 ± 0.31`; empty where there is none."""
        return "" if value is None else value.text(self.show)


@dataclass(frozen=True)
class SplitMetric:
    """A column of tables with a row per network. name: without the split."""

    name: str
    read: Callable[[Metrics], float | None]
    show: Callable[[float], str] = format.percent

    def text(self, metrics: Metrics) -> str:
        """The value as shown; empty where there is none."""
        value = self.read(metrics)
        return "" if value is None else self.show(value)


def few(value: float) -> str:
    """`206`, or `205.7` as a mean."""
    return f"{value:.1f}".removesuffix(".0")


def _count(value: float) -> str:
    return format.count(round(value))


def _seconds(value: float) -> str:
    return f"{value:.1f}"


def _of(read: Callable[[RunResult], float | None]) -> Callable[[Run], float | None]:
    return lambda run: read(run.result)


def last_val_top1(run: Run) -> float | None:
    """Validation top-1 of the last epoch, percent."""
    values = (number(row, VAL) for row in reversed(run.metrics))
    return next((value for value in values if value is not None), None)


def teacher_top1(result: RunResult) -> float | None:
    """Test top-1 of the best teacher, percent."""
    values = [teacher.test.top1 for teacher in result.teachers]
    return max((value for value in values if value is not None), default=None)


def measured_weight(result: RunResult) -> float | None:
    """The weight of the one loss whose weight was measured."""
    weights = [entry.weight for entry in result.auto_weights.values()]
    return weights[0] if len(weights) == 1 else None


# Metrics of a network on one split.
SPLIT_METRICS = (
    SplitMetric("top-1 %", lambda m: m.top1),
    SplitMetric("top-5 %", lambda m: m.top5),
    SplitMetric("errors", lambda m: m.errors, _count),
    SplitMetric("ECE %", lambda m: m.ece),
)
SPLIT_LOSS = SplitMetric("loss", lambda m: m.loss, format.loss)

# Chooses the winner in every table; the test split chooses nothing.
WINNER = Metric(
    "best val top-1 %", "Validation split, best epoch. Tables are sorted by it.",
    _of(lambda r: r.trained.best_val.val_top1))  # fmt: skip
BASELINE = Metric(
    "baseline top-1 %", "Test split: the same student, recipe and seed, trained on labels only.",
    _of(lambda r: r.alone.test.top1), label="baseline")  # fmt: skip
TEST = Metric(
    "test top-1 %", "Test split, last epoch: the distilled student.",
    _of(lambda r: r.trained.test.top1), tables=(*EVERYWHERE, LISTING),
    label="distilled")  # fmt: skip
GAIN = Metric(
    "gain points", "Distilled minus baseline, paired by seed, in percentage points.",
    _of(lambda r: r.gain), format.points, label="gain")  # fmt: skip
TEACHER = Metric(
    "teacher top-1 %", "Test split; the best of several teachers.", _of(teacher_top1),
    label="teacher")  # fmt: skip
ENSEMBLE = Metric(
    "teacher ensemble top-1 %", "Test split: mean probabilities of several teachers.",
    _of(lambda r: r.teacher_ensemble.test.top1),
    label="teacher ensemble")  # fmt: skip
AGREEMENT = Metric(
    "agreement %", "Test images to which student and teacher give the same answer.",
    _of(lambda r: r.agreement))  # fmt: skip

# fmt: off
METRICS: list[Metric] = [
    BASELINE,
    TEST,
    GAIN,
    TEACHER,
    ENSEMBLE,
    WINNER,
    AGREEMENT,
    Metric("ECE %", "Expected calibration error of the student, 15 bins.",
           _of(lambda r: r.trained.test.ece), better="lower", tables=(REPORT, LISTING, *FILES)),
    Metric("test errors", "Misclassified test images.",
           _of(lambda r: r.trained.test.errors), few, "lower", (*EVERYWHERE, LISTING), False),
    Metric("test top-5 %", "Test split, last epoch.",
           _of(lambda r: r.trained.test.top5), tables=FILES),
    Metric("test loss", "Cross-entropy on the test split.",
           _of(lambda r: r.trained.test.loss), format.loss, "lower", FILES),
    Metric("left-out errors", "Misclassified test images of the classes that the transfer set "
           "leaves out.", _of(lambda r: r.student.errors_in(r.transfer.classes_left_out)), few,
           "lower", (REPORT, *FILES)),
    Metric("corrected errors", "Misclassified test images after the bias correction of the "
           "left-out classes.", _of(lambda r: r.student.bias_corrected.test.errors), few, "lower",
           (REPORT, *FILES)),
    Metric("corrected left-out errors", "Corrected errors within the left-out classes.",
           _of(lambda r: r.student.bias_corrected.errors_in(r.transfer.classes_left_out)), few,
           "lower", (REPORT, *FILES)),
    Metric("last val top-1 %", "Validation split, last epoch.", last_val_top1,
           tables=(REPORT, *FILES)),
    Metric("best val epoch", "Epoch with the highest validation accuracy.",
           _of(lambda r: r.trained.best_val.epoch), few, "", FILES),
    Metric("best-val test top-1 %", "Test split, best validation epoch.",
           _of(lambda r: r.trained.best_val.test.top1), tables=(REPORT, *FILES), spread=False),
    Metric("EMA test top-1 %", "Test split, last epoch: averaged weights (schedule.ema).",
           _of(lambda r: r.trained.ema.test.top1), tables=(REPORT, *FILES)),
    Metric("EMA val top-1 %", "Validation split, last epoch: averaged weights.",
           _of(lambda r: r.trained.ema.val_top1), tables=FILES),
    Metric("measured weight", "Weight of the loss with loss.ID.weight=auto.", _of(measured_weight),
           lambda value: f"{value:.4g}", "", (REPORT, *FILES)),
    Metric("params", "Trainable parameters of the student.",
           _of(lambda r: r.trained.params), _count, "lower", (REPORT, LISTING, *FILES), False),
    Metric("FLOPs", "Forward pass of one image; a multiply-add counts as 2.",
           _of(lambda r: r.trained.flops), format.flops, "lower", (REPORT, LISTING, *FILES), False),
    Metric("bytes", "Weights of the student as deployed; of sweeps with a budget.",
           lambda run: run.weight_bytes, _count, "lower",
           (REPORT, *FILES), False),
    Metric("latency ms", "Median of one call of the student; how it was measured: see the chart.",
           lambda run: run.latency_ms, lambda value: f"{value:.3g}", "lower", spread=False),
    Metric("seconds", "Training time of the student, without teacher and baseline.",
           _of(lambda r: r.time.seconds), _seconds, "lower", spread=False),
    Metric("teacher seconds", "Training time of the teachers; 0 where they were reused.",
           _of(lambda r: r.time.teacher_seconds), _seconds, "lower", (RUNS,)),
    Metric("ms/step", "Median time of a training step.",
           _of(lambda r: r.benchmark.this.step_ms.median), better="lower",
           tables=(RANKING, *FILES)),
    Metric("images/s", "Training speed.",
           _of(lambda r: r.benchmark.this.images_per_second),
           tables=(RANKING, *FILES)),
    Metric("bare/whole", "Compute alone divided by the whole step.",
           _of(lambda r: r.benchmark.bare_over_whole.median), tables=(RANKING, *FILES)),
]
# fmt: on


def metrics_of(table: str, runs: Sequence[Run]) -> list[Metric]:
    """The columns of a table: its metrics, and those that only the runs' data sets have."""
    titles = {title for run in runs for title in run.result.trained.extra_metrics}
    chosen = [metric for metric in METRICS if table in metric.tables]
    return chosen + [_extra_metric(title) for title in sorted(titles)]


def _extra_metric(title: str) -> Metric:
    def read(run: Run) -> float | None:
        return run.result.trained.extra_metrics.get(title)

    return Metric(title, "Metric of this data set, in percent.", read, better="lower")
