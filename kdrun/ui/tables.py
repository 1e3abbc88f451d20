"""The result tables at the end of a command, and the sentences below them."""

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
from kdrun.report.verdict import verdict_of
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

# Names of schemes as their papers abbreviate them.
SCHEME_NAMES = {
    "one": "ONE",
    "byot": "BYOT",
    "tf_kd": "Tf-KD",
    "cs_kd": "CS-KD",
    "born_again": "born-again",
    "chain": "teacher assistants",
}
ROW_NOTES = {
    "peers": "peer: a network trained together with the student; both teach each other",
    "branches": "branch: a copy of the student's last layers, used only in training",
    "exits": "exit: a classifier after an earlier stage of the student, used only in training",
}


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
    """Teachers, baseline, student, and the networks that were trained or measured with it."""
    student = result.student
    table = _networks_table(student.extra_metrics)
    for teacher in result.teachers:
        _network_row(table, f"teacher  {teacher.name}", teacher, student, teacher)
    ensemble = result.teacher_ensemble
    if ensemble:
        _network_row(table, f"ensemble of {ensemble.members} teachers", ensemble, student)
    if result.alone:
        size = replace(
            student,
            params=result.alone.params or student.params,
            flops=result.alone.flops or student.flops,
        )
        _network_row(table, f"student alone  {student.name}", result.alone, student, size)
    for generation in result.generations[:-1]:
        label = f"{generation.role}  {generation.name}"
        _network_row(table, label, generation, student, generation)
    _network_row(table, f"{_student_label(result)}  {student.name}", student, student, student)
    corrected = student.bias_corrected
    if corrected:
        label = f"  bias of the left-out classes {corrected.shift:+.2f}"
        _network_row(table, label, corrected, student)
    if student.best_val:
        label = f"  best validation epoch ({student.best_val.epoch})"
        _network_row(table, label, student.best_val, student)
    if student.ema:
        _network_row(table, f"  {student.ema.title}", student.ema, student)
    ensemble = result.ensemble_of_generations
    if ensemble:
        _network_row(table, f"ensemble of {ensemble.members} generations", ensemble, student)
    for model in (*result.peers, *result.branches, *result.exits, *result.ensemble):
        label = f"{model.name}  {model.network}" if model.network is not None else str(model.name)
        _network_row(table, label, model, student, model if model.params is not None else None)
    return table


def _student_label(result: RunResult) -> str:
    """How the student was trained, e.g. `student (ONE)`."""
    scheme = result.scheme or "offline"
    if scheme != "offline":
        return f"student ({SCHEME_NAMES.get(scheme, scheme)})"
    return "student distilled" if result.teachers else "student"


def row_notes(result: RunResult) -> list[str]:
    """What the additional rows of a scheme's result table are."""
    notes = []
    if len(result.generations) > 1:
        assistants = str(result.generations[0].role).startswith("assistant")
        notes.append(
            "assistant: a network of intermediate size, distilled first to teach the next one"
            if assistants
            else "generation: the same network, trained before the student to teach it"
        )
    notes += [note for kind, note in ROW_NOTES.items() if getattr(result, kind)]
    if result.ensemble or result.ensemble_of_generations or result.teacher_ensemble:
        notes.append("ensemble: the combined answer of several networks, not the saved student")
    return notes


def teacher_table(teachers: Sequence[TeacherResult]) -> Table:
    """Teachers on the test split."""
    first = teachers[0] if teachers else TeacherResult()
    table = _networks_table(first.extra_metrics)
    for teacher in teachers:
        _network_row(table, f"teacher  {teacher.name}", teacher, first, teacher)
        if teacher.ema:
            _network_row(table, f"  {teacher.ema.title}", teacher.ema, first)
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


def format_summary(result: RunResult) -> list[str]:
    """Sentences below the table: gain, agreement, and what the additional rows are."""
    student, teachers = result.student, result.teachers
    reference = "the ensemble of teachers" if result.teacher_ensemble else "the teacher"
    lines = [*_format_gain(result, reference), *_advice(result)]
    if student.stopped_early:
        lines.append(format_early_stop(student.stopped_early))
    if result.agreement is not None:
        lines.append(
            f"agreement with {reference}: {format.percent(result.agreement)} % of the test split"
        )
    if result.seed is not None and result.dataset.test_size:
        points = 100 / result.dataset.test_size
        image = f"one test image is {points:.2f} points"
        if result.gain is None:
            lines.append(f"one run (n=1, seed {result.seed}); {image}")
        else:
            lines.append(f"{verdict_of([result.gain]).text()} ({image})")
    distilled = teachers or (result.scheme or "offline") != "offline"
    if not result.alone and distilled:
        reason = "alone=true trains it"
        if result.transfer and not result.transfer.labels:
            reason = "the transfer set has no labels"
        lines.append(f"student alone: not measured ({reason})")
    return [*lines, *_format_bias(student.bias_corrected), *row_notes(result)]


def _format_gain(result: RunResult, reference: str) -> list[str]:
    """The gain over the baseline, and its share of the gap to the teacher."""
    if result.gain is None:
        return []
    gain = format.points(result.gain)
    measured = _reference(result).test.top1 if result.teachers else None
    if measured is None or result.alone.test.top1 is None:
        return [f"gain over the student alone: {gain} points"]
    gap = measured - result.alone.test.top1
    if gap <= 0:
        relation = "matches" if gap == 0 else "beats"
        return [
            f"gain over the student alone: {gain} points "
            f"(no gap to close: the baseline {relation} {reference})"
        ]
    return [
        f"gap closed: {100 * result.gain / gap:.0f} % of the {format.points(gap)[1:]} points "
        f"between student alone and {reference} (gain {gain} points)"
    ]


def _advice(result: RunResult) -> list[str]:
    """What to try when the student is worse than the baseline."""
    if result.gain is None or result.gain >= 0:
        return []
    others = [name for name in result.loss if name not in ("kd", "ce")]
    advice = "another T or alpha"
    if others:
        advice = f"a smaller loss.{others[0]}.weight"
        if "kd" not in result.loss:
            advice += f", or 'loss=[kd,{others[0]}]'"
    return [f"in this run the student is worse than the student alone: try {advice}"]


def _format_bias(corrected: BiasCorrection) -> list[str]:
    """The correction of the logits of classes that the transfer set leaves out."""
    if not corrected:
        return []
    split = corrected.counted_on
    how = (
        "as configured"
        if split is None
        else f"chosen to predict them as often as in training, on the {split} images"
    )
    return [
        f"bias correction: {corrected.shift:+.3f} on the logits of {len(corrected.classes)} "
        f"left-out class(es), {how}; student.safetensors is not corrected"
    ]


def format_early_stop(stopped: EarlyStop) -> str:
    """`stopped early after epoch 12 of 60: best validation accuracy in epoch 7`."""
    return (
        f"stopped early after epoch {stopped.epoch} of {stopped.epochs}: best {stopped.metric} in "
        f"epoch {stopped.not_better_since}; the table shows the last epoch"
    )


def counted_rows(kind: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, text) for the header of a run; equal texts once, with their count."""
    counts = Counter(texts)
    return [(kind, text if count == 1 else f"{count} × {text}") for text, count in counts.items()]


def _reference(result: RunResult) -> Measured:
    """What the student is compared with: its teacher, or the ensemble of teachers."""
    return result.teacher_ensemble or result.teachers[0]


def format_dataset(facts: dict[str, Any]) -> str:
    """`digits: 10 classes, 1,293 train, 144 validation, 360 test images`."""
    sizes = ", ".join(
        f"{facts[f'{split}_size']:,} {name}"
        for split, name in (("train", "train"), ("val", "validation"), ("test", "test images"))
    )
    return f"{facts['name']}: {facts['num_classes']} classes, {sizes}"


def format_network(facts: dict[str, Any]) -> str:
    """`resnet8: 78,042 parameters, 25.1 M FLOPs per image`."""
    size = f"{format.count(facts['params'])} parameters"
    return f"{facts['name']}: {size}, {format.flops(facts['flops'])} FLOPs per image"


def format_schedule(schedule: ScheduleConfig) -> str:
    """`30 epochs, batch 64, sgd lr 0.05, cosine`."""
    length = f"{schedule.epochs} epoch{'s' * (schedule.epochs != 1)}"
    if schedule.steps is not None:
        length = f"{schedule.steps:,} steps (schedule.steps overrides epochs)"
    optimizer = f"{schedule.optimizer} lr {schedule.lr:g}, {schedule.curve}"
    stopping = ""
    if schedule.early_stopping:
        stopping = (
            f", early stopping on validation {schedule.early_stopping_metric}, patience "
            f"{schedule.early_stopping} epochs"
        )
    bound = f", max-norm {schedule.max_norm:g}" if schedule.max_norm else ""
    averaged = f", ema {schedule.ema:g}" if schedule.ema else ""
    if schedule.freeze_epochs:
        optimizer += f", classifier only for {schedule.freeze_epochs} epochs"
    batch = f"batch {schedule.batch_size}"
    if schedule.accumulate > 1:
        batch += f" × {schedule.accumulate} = {schedule.batch_size * schedule.accumulate}"
    return f"{length}, {batch}, {optimizer}{bound}{averaged}{stopping}"
