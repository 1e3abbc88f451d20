"""The tables a command ends in."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from kdrun.config.schema import ScheduleConfig
from kdrun.limits import visible
from kdrun.ui import format

# What schemes measure beside the student: lists of `result.json`, in the order they are shown.
COMPANIONS = ("peers", "branches", "exits", "ensemble")


def new_table(*columns: str, title: str | None = None) -> Table:
    """A plain table: the first column left, all others right."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """A row of plain text: `[kd,sp]` in it is a value, not markup."""
    table.add_row(*(escape(visible(cell)) for cell in cells))


def result_table(result: dict[str, Any]) -> Table:
    """Teacher, student alone, student distilled: from a `result.json`."""
    student = result["student"]
    group = group_name(student)
    table = _networks_table(group)
    for teacher in result.get("teachers", []):
        _network_row(table, f"teacher  {teacher['name']}", teacher, teacher, group)
    joint = result.get("teacher_ensemble")
    if joint:
        _network_row(table, f"{joint['members']} teachers together", joint, None, group)
    alone = result.get("alone")
    if alone:
        size = {**student, **alone}
        _network_row(table, f"student alone  {student['name']}", alone, size, group)
    for one in result.get("generations", [])[:-1]:
        _network_row(table, f"{one['role']}  {one['name']}", one, one, group)
    _network_row(table, f"{_student_words(result)}  {student['name']}", student, student, group)
    corrected = student.get("bias_corrected")
    if corrected:
        label = f"  bias of left-out classes {corrected['shift']:+.2f}"
        _network_row(table, label, corrected, None, group)
    best = student.get("best_val")
    if best:
        label = f"  at its best validation: epoch {best['epoch']}"
        _network_row(table, label, best, None, group)
    joint = result.get("ensemble_of_generations")
    if joint:
        _network_row(table, f"{joint['members']} generations together", joint, None, group)
    for kind in COMPANIONS:
        for one in result.get(kind, []):
            name = f"{one['name']}  {one['network']}" if "network" in one else one["name"]
            _network_row(table, name, one, one if "params" in one else None, group)
    return table


def _student_words(result: dict[str, Any]) -> str:
    """How the student was taught."""
    if result.get("scheme", "offline") != "offline":
        return f"student by {result['scheme']}"
    return "student distilled" if result.get("teachers") else "student"


def teacher_table(teachers: list[dict[str, Any]]) -> Table:
    """Teachers on the test split: entries of `result.json`."""
    group = group_name(teachers[0]) if teachers else None
    table = _networks_table(group)
    for teacher in teachers:
        _network_row(table, f"teacher  {teacher['name']}", teacher, teacher, group)
    return table


def splits_table(figures: dict[str, dict[str, Any]]) -> Table:
    """One network on several splits: name → metrics, and name_words → those of its groups."""
    group = group_name(figures)
    extra = [f"{group} error %"] if group else []
    table = new_table("split", "top-1 %", "top-5 %", "errors", "ECE %", "loss", *extra)
    for name, found in figures.items():
        if group and name.endswith(f"_{group}s"):
            continue
        grouped = figures.get(f"{name}_{group}s")
        table.add_row(
            {"val": "validation"}.get(name, name),
            format.percent(found["top1"]),
            format.percent(found["top5"]),
            format.count(found["errors"]),
            format.percent(found["ece"]),
            format.loss(found["loss"]),
            *([format.percent(grouped[f"{group}_error_percent"])] if grouped else []),
        )
    return table


def group_name(figures: dict[str, Any]) -> str | None:
    """What a group of images is called, if their figures (`test_words`) are among these."""
    for key in figures:
        if key.startswith("test_") and key.endswith("s"):
            return key.removeprefix("test_").removesuffix("s")
    return None


def _networks_table(group: str | None) -> Table:
    extra = [f"{group} error %"] if group else []
    return new_table(
        "test split", "top-1 %", "top-5 %", "errors", "ECE %", *extra, "params", "FLOPs"
    )


def _network_row(
    table: Table,
    name: str,
    figures: dict[str, Any],
    size: dict[str, Any] | None,
    group: str | None,
) -> None:
    test = figures["test"]
    grouped = figures.get(f"test_{group}s")
    error = format.percent(grouped[f"{group}_error_percent"]) if grouped else ""
    table.add_row(
        name,
        format.percent(test["top1"]),
        format.percent(test["top5"]),
        format.count(test["errors"]),
        format.percent(test["ece"]),
        *([error] if group else []),
        format.count(size["params"]) if size else "",
        format.flops(size["flops"]) if size else "",
    )


def summary_lines(result: dict[str, Any]) -> list[str]:
    """What the table means, in sentences: the gap closed and the agreement."""
    lines = []
    student, alone = result["student"]["test"], result.get("alone")
    teachers = result.get("teachers", [])
    taught_by = "the teachers together" if result.get("teacher_ensemble") else "the teacher"
    if alone and teachers:
        gap = _reference(result)["test"]["top1"] - alone["test"]["top1"]
        gain = result["gain"]
        if gap > 0:
            lines.append(
                f"gap closed: {100 * gain / gap:.0f} % of the {format.points(gap)[1:]} points "
                f"between student alone and {taught_by} (gain {format.points(gain)} points)"
            )
        else:
            lines.append(
                f"gain over the student alone: {format.points(gain)} points "
                f"(there was no gap: alone it is as good as {taught_by})"
            )
    elif alone and result["gain"] is not None:
        lines.append(f"gain over the student alone: {format.points(result['gain'])} points")
    group = group_name(result["student"])
    if group:
        counts = result["student"][f"test_{group}s"]
        lines.append(
            f"{group} error: the student has {counts['errors']} of {counts[f'{group}s']} {group}s "
            f"wrong, each answered by the sum of its images' log posteriors"
        )
    stopped = result["student"].get("stopped_early")
    if stopped:
        lines.append(stopped_words(stopped))
    if result.get("agreement") is not None:
        lines.append(
            f"agreement with {taught_by}: {format.percent(result['agreement'])} % of the test split"
        )
    if result.get("seed") is not None:
        size = result["dataset"]["test_size"]
        lines.append(
            f"one run (n=1, seed {result['seed']}); one test image is {100 / size:.2f} points"
        )
    taught = teachers or result.get("scheme", "offline") != "offline"
    if not alone and student and taught:
        unlabelled = not (result.get("transfer") or {"labels": True})["labels"]
        reason = "the transfer set has no labels" if unlabelled else "alone=true trains it"
        lines.append(f"student alone: not measured ({reason})")
    lines += _bias_lines(result["student"])
    return lines


def _bias_lines(student: dict[str, Any]) -> list[str]:
    """How the biases were corrected."""
    corrected = student.get("bias_corrected")
    if not corrected:
        return []
    split = corrected["counted_on"]
    how = "as given" if split is None else f"matches their training share on the {split} images"
    return [
        f"bias correction: {corrected['shift']:+.3f} on the logits of {len(corrected['classes'])} "
        f"left-out class(es), {how}; student.safetensors is the plain student"
    ]


def stopped_words(stopped: dict[str, Any]) -> str:
    """`stopped after epoch 12 of 60: validation accuracy was best in epoch 7`."""
    return (
        f"stopped after epoch {stopped['epoch']} of {stopped['epochs']}: {stopped['metric']} was "
        f"best in epoch {stopped['not_better_since']}; the figures are those of the last epoch"
    )


def counted_rows(kind: str, words: Sequence[str]) -> list[tuple[str, str]]:
    """(kind, words) for the head of a run; equal ones once, with their number."""
    counts = Counter(words)
    return [(kind, text if count == 1 else f"{count} × {text}") for text, count in counts.items()]


def _reference(result: dict[str, Any]) -> dict[str, Any]:
    """Whose figures a student is compared with: its teacher's, or those of all together."""
    found: dict[str, Any] = result.get("teacher_ensemble") or result["teachers"][0]
    return found


def next_commands(result: dict[str, Any], folder: str) -> list[str]:
    """What a user would try after this result."""
    commands = [f"kdrun evaluate run={folder}"]
    if result.get("teachers") and result.get("scheme", "offline") == "offline":
        commands.append(
            "kdrun distill -m T=1,4,20 alpha=0.1,0.9    # a sweep: one teacher, six students"
        )
        if result["loss"] == ["kd"]:
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
