"""`kdrun train-teacher`: train or find teachers, in a run folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kdrun.config import unused
from kdrun.config.dump import train_teacher_plain
from kdrun.config.schema import TrainTeacherConfig, named_teachers
from kdrun.data.dataset import Dataset
from kdrun.distillation.data_rows import data_rows
from kdrun.distillation.early_checks import check_teacher_lengths, network_checks
from kdrun.distillation.fine_tuning import classifier_for
from kdrun.distillation.networks import card_to_dict, dataset_to_dict
from kdrun.distillation.new_teacher import teacher_network
from kdrun.distillation.next_command import after_train_teacher
from kdrun.distillation.recording import recording
from kdrun.distillation.run_identity import own_code_entry, teacher_identity
from kdrun.distillation.session import Session, open_data
from kdrun.distillation.teacher import Teacher, get_or_train_teachers
from kdrun.distillation.token_heads import require_no_heads
from kdrun.engine.devices import check_precision
from kdrun.engine.speed import auto_note, images_seen, slow_settings
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import COMPLETED, EarlyStop, TeacherResult
from kdrun.ui import tables
from kdrun.ui.augmentation import format_augment
from kdrun.ui.reporter import Reporter


def run_train_teacher(
    config: TrainTeacherConfig, folder: RunFolder, session: Session, argv: Sequence[str]
) -> dict[str, Any]:
    """Start or resume the run of `folder`; returns its `result.json`."""
    first = config.teachers[0]
    for teacher in config.teachers:
        check_precision(teacher.schedule.precision, session.device)
    known: dict[str, Any] = {
        "identity": teacher_identity(config),
        "dataset": None,
        "seed": first.seed,
        "epochs": first.schedule.epochs,
        "device": str(session.device),
        "precision": first.schedule.precision,
        "teachers": [],
        "time": None,
        **own_code_entry(train_teacher_plain(config)),
    }
    # run all checks before the folder is created
    checks = network_checks(config)
    dataset = open_data(session, config.dataset, config.val_fraction, checks)
    check_teacher_lengths(config.teachers, dataset.train)
    plan = _plan(config, dataset, session.device)
    with recording(folder, session, "train-teacher", train_teacher_plain(config), argv, known):
        folder.result.update(dataset=dataset_to_dict(dataset))
        _say_plan(plan, config, session, folder)
        teachers = get_or_train_teachers(
            config.teachers, config.dataset, config.val_fraction, dataset, session, folder
        )
        folder.result.update(
            status=COMPLETED,
            time={"teacher_seconds": round(sum(teacher.seconds for teacher in teachers), 3)},
        )
        loaded = [teacher.checkpoint is not None for teacher in config.teachers]
        _show(teachers, loaded, folder.path, argv, session.reporter)
    return folder.result.values


Rows = list[tuple[str, str]]


def _plan(
    config: TrainTeacherConfig, dataset: Dataset, device: torch.device
) -> tuple[Rows, list[str]]:
    """(rows, notes) of a run's header, from building the networks.

    Raises ConfigError or CheckpointError for incompatible settings or files.
    """
    rows = data_rows(dataset)
    notes: list[str] = [*dataset.notes, *auto_note(device)]
    for where, teacher in named_teachers(config.teachers):
        network, card, its_notes = teacher_network(teacher, dataset, where)
        rows.append(("teacher", tables.format_network(card_to_dict(card))))
        notes += its_notes
        if teacher.checkpoint is not None:
            continue
        require_no_heads(network)
        classes = dataset.info.num_classes
        classifier_for(network, teacher.schedule, classes, "teacher.schedule.")
        rows += [
            ("schedule", f"{tables.format_schedule(teacher.schedule)}, seed {teacher.seed}"),
            *([("augment", format_augment(teacher.augment))] if teacher.augment else []),
        ]
        images = images_seen(teacher.schedule, len(dataset.train_index))
        precision, flops = teacher.schedule.precision, 3.0 * card.flops * images
        notes += slow_settings(precision, config.runtime, device, flops)
    return rows, notes


def _say_plan(
    plan: tuple[Rows, list[str]], config: TrainTeacherConfig, session: Session, folder: RunFolder
) -> None:
    """Show the run header."""
    rows, notes = plan
    session.reporter.heading("kdrun train-teacher")
    precisions = dict.fromkeys(teacher.schedule.precision for teacher in config.teachers)
    rows = [
        *rows,
        ("device", f"{session.device_line()}, {', '.join(precisions)}"),
        ("folder", str(folder.path)),
        *(("note", note) for note in notes),
        *(("note", str(setting)) for setting in unused.changed(config)),
    ]
    session.reporter.facts(dict.fromkeys(rows))


def _show(
    teachers: Sequence[Teacher],
    loaded: Sequence[bool],
    folder: Path,
    argv: Sequence[str],
    reporter: Reporter,
) -> None:
    reporter.heading("Result")
    reporter.show(
        tables.teacher_table(
            [TeacherResult.from_dict(one.to_dict(), check=False) for one in teachers]
        )
    )
    for teacher in teachers:
        best = teacher.card.extra.get("best_val")
        if best:
            reporter.say(
                f"  best validation epoch: {best['epoch']} ({best['val_top1']:.2f} %); "
                "the teacher is the last epoch"
            )
        stopped = teacher.card.extra.get("stopped_early")
        if stopped:
            reporter.say(f"  {tables.format_early_stop(EarlyStop.from_dict(stopped, check=False))}")
        reporter.say(f"  weights: {teacher.path}")
    reporter.say(f"  folder: {folder}")
    reporter.say("next:", style="bold")
    reporter.say(f"  {after_train_teacher(argv, [t.path for t in teachers], loaded)}")
    reporter.say("  (student=NAME chooses the student: kdrun ls student)")
