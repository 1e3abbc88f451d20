"""The tables a command ends in."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from kdrun.config.schema import ScheduleConfig
from kdrun.limits import visible
from kdrun.report.metrics_table import SPLIT_LOSS, SPLIT_METRICS
from kdrun.runs.result import (
    BiasCorrection,
    EarlyStop,
    Measured,
    Metrics,
    NetworkResult,
    RunResult,
    TeacherResult,
    percent_columns,
)
from kdrun.ui import format


def new_table(*columns: str, title: str | None = None) -> Table:
    """A plain table: the first column left, all others right."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """A row of plain text: `[kd,sp]` in it is a value, not markup."""
    table.add_row(*(escape(visible(cell)) for cell in cells))


def result_table(result: RunResult) -> Table:
    """Teachers, student alone, student distilled, and what was trained with it."""
    student = result.student
    table = _networks_table(student.extra_metrics)
    for teacher in result.teachers:
        _network_row(table, f"teacher  {teacher.name}", teacher, student, teacher)
    joint = result.teacher_ensemble
    if joint:
        _network_row(table, f"{joint.members} teachers together", joint, student)
    if result.alone:
        size = replace(
            student,
            params=result.alone.params or student.params,
            flops=result.alone.flops or student.flops,
        )
        _network_row(table, f"student alone  {student.name}", result.alone, student, size)
    for one in result.generations[:-1]:
        _network_row(table, f"{one.role}  {one.name}", one, student, one)
    _network_row(table, f"{_student_words(result)}  {student.name}", student, student, student)
    corrected = student.bias_corrected
    if corrected:
        label = f"  bias of left-out classes {corrected.shift:+.2f}"
        _network_row(table, label, corrected, student)
    if student.best_val:
        label = f"  at its best validation: epoch {student.best_val.epoch}"
        _network_row(table, label, student.best_val, student)
    joint = result.ensemble_of_generations
    if joint:
        _network_row(table, f"{joint.members} generations together", joint, student)
    for one in (*result.peers, *result.branches, *result.exits, *result.ensemble):
        name = f"{one.name}  {one.network}" if one.network is not None else str(one.name)
        _network_row(table, name, one, student, one if one.params is not None else None)
    return table


def _student_words(result: RunResult) -> str:
    """How the student was trained."""
    if (result.scheme or "offline") != "offline":
        return f"student by {result.scheme}"
    return "student distilled" if result.teachers else "student"


def teacher_table(teachers: Sequence[TeacherResult]) -> Table:
    """Teachers on the test split."""
    first = teachers[0] if teachers else TeacherResult()
    table = _networks_table(first.extra_metrics)
    for teacher in teachers:
        _network_row(table, f"teacher  {teacher.name}", teacher, first, teacher)
    return table


def splits_table(figures: dict[str, dict[str, Any]]) -> Table:
    """One network on several splits: split → metrics, and <split>_<name> → extra metrics."""
    splits = [name for name in figures if not any(name.startswith(f"{s}_") for s in figures)]
    extra = {
        split: {
            title: value
            for name, values in figures.items()
            if name.startswith(f"{split}_")
            for title, value in percent_columns(values).items()
        }
        for split in splits
    }
    titles = list(dict.fromkeys(title for values in extra.values() for title in values))
    metrics = (*SPLIT_METRICS, SPLIT_LOSS)
    table = new_table("split", *(metric.name for metric in metrics), *titles)
    for split in splits:
        measured = Metrics.from_dict(figures[split])
        table.add_row(
            {"val": "validation"}.get(split, split),
            *(metric.text(measured) for metric in metrics),
            *_extra_cells(extra[split], titles),
        )
    return table


def _networks_table(extra: Iterable[str]) -> Table:
    """extra: titles of the columns of extra metrics."""
    metrics = (metric.name for metric in SPLIT_METRICS)
    return new_table("test split", *metrics, *extra, "params", "FLOPs")


def _network_row(
    table: Table,
    name: str,
    measured: Measured,
    like: Measured,
    size: NetworkResult | None = None,
) -> None:
    """Add a row. like: the network whose extra metrics are the table's columns."""
    table.add_row(
        name,
        *(metric.text(measured.test) for metric in SPLIT_METRICS),
        *_extra_cells(measured.extra_metrics, like.extra_metrics),
        format.count(size.params) if size and size.params is not None else "",
        format.flops(size.flops) if size and size.flops is not None else "",
    )


def _extra_cells(values: Mapping[str, float], titles: Iterable[str]) -> list[str]:
    return [format.percent(values[t]) if t in values else "" for t in titles]


def summary_lines(result: RunResult) -> list[str]:
    """What the table means, in sentences: the gap closed and the agreement."""
    student, alone, teachers = result.student, result.alone, result.teachers
    several = "the teachers together" if result.teacher_ensemble else "the teacher"
    lines = _gain_lines(result, several)
    if student.stopped_early:
        lines.append(stopped_words(student.stopped_early))
    if result.agreement is not None:
        lines.append(
            f"agreement with {several}: {format.percent(result.agreement)} % of the test split"
        )
    if result.seed is not None and result.dataset.test_size:
        points = 100 / result.dataset.test_size
        lines.append(f"one run (n=1, seed {result.seed}); one test image is {points:.2f} points")
    taught = teachers or (result.scheme or "offline") != "offline"
    if not alone and taught:
        reason = "alone=true trains it"
        if result.transfer and not result.transfer.labels:
            reason = "the transfer set has no labels"
        lines.append(f"student alone: not measured ({reason})")
    lines += _bias_lines(student.bias_corrected)
    return lines


def _gain_lines(result: RunResult, several: str) -> list[str]:
    """The gain over the baseline, and its share of the gap to the teacher."""
    if result.gain is None:
        return []
    gain = format.points(result.gain)
    reference = _reference(result).test.top1 if result.teachers else None
    if reference is None or result.alone.test.top1 is None:
        return [f"gain over the student alone: {gain} points"]
    gap = reference - result.alone.test.top1
    if gap <= 0:
        return [
            f"gain over the student alone: {gain} points "
            f"(there was no gap: alone it is as good as {several})"
        ]
    return [
        f"gap closed: {100 * result.gain / gap:.0f} % of the {format.points(gap)[1:]} points "
        f"between student alone and {several} (gain {gain} points)"
    ]


def _bias_lines(corrected: BiasCorrection) -> list[str]:
    """How the biases were corrected."""
    if not corrected:
        return []
    split = corrected.counted_on
    how = "as given" if split is None else f"matches their training share on the {split} images"
    return [
        f"bias correction: {corrected.shift:+.3f} on the logits of {len(corrected.classes)} "
        f"left-out class(es), {how}; student.safetensors is the plain student"
    ]


def stopped_words(stopped: EarlyStop) -> str:
    """`stopped after epoch 12 of 60: validation accuracy was best in epoch 7`."""
    return (
        f"stopped after epoch {stopped.epoch} of {stopped.epochs}: {stopped.metric} was "
        f"best in epoch {stopped.not_better_since}; the figures are those of the last epoch"
    )


def counted_rows(kind: str, words: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, words) for the head of a run; equal ones once, with their number."""
    counts = Counter(words)
    return [(kind, text if count == 1 else f"{count} × {text}") for text, count in counts.items()]


def _reference(result: RunResult) -> Measured:
    """What a student is compared with: its teacher, or all of them together."""
    return result.teacher_ensemble or result.teachers[0]


def next_commands(result: RunResult, folder: str) -> list[str]:
    """What a user would try after this result."""
    commands = [f"kdrun evaluate run={folder}"]
    if result.teachers and (result.scheme or "offline") == "offline":
        commands.append(
            "kdrun distill -m T=1,4,20 alpha=0.1,0.9    # a sweep: one teacher, six students"
        )
        if result.loss == ("kd",):
            commands.append("kdrun distill 'loss=[kd,sp]'               # another objective")
    return commands


def dataset_words(facts: dict[str, Any]) -> str:
    """`digits: 10 classes, 1,293 train, 144 validation, 360 test images`."""
    sizes = ", ".join(
        f"{facts[f'{split}_size']:,} {words}"
        for split, words in (("train", "train"), ("val", "validation"), ("test", "test images"))
    )
    return f"{facts['name']}: {facts['num_classes']} classes, {sizes}"


def network_words(facts: dict[str, Any]) -> str:
    """`resnet8: 78,042 parameters, 25.1 M FLOPs per image`."""
    size = f"{format.count(facts['params'])} parameters"
    return f"{facts['name']}: {size}, {format.flops(facts['flops'])} FLOPs per image"


def schedule_words(schedule: ScheduleConfig) -> str:
    """`30 epochs, batch 64, sgd lr 0.05, cosine`."""
    length = f"{schedule.epochs} epochs"
    if schedule.steps is not None:
        length = f"{schedule.steps:,} steps (schedule.steps is set, epochs is not used)"
    optimizer = f"{schedule.optimizer} lr {schedule.lr:g}, {schedule.curve}"
    stopping = ""
    if schedule.early_stopping:
        stopping = (
            f", stops when validation {schedule.early_stopping_metric} has not improved for "
            f"{schedule.early_stopping} epochs"
        )
    bound = f", weights into a unit of norm ≤ {schedule.max_norm:g}" if schedule.max_norm else ""
    return f"{length}, batch {schedule.batch_size}, {optimizer}{bound}{stopping}"
