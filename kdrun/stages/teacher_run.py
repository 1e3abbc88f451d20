"""`kdrun train-teacher`: stage 1 alone, with a run folder of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdrun.config.dump import train_teacher_plain
from kdrun.config.schema import TrainTeacherConfig
from kdrun.engine.devices import check_precision
from kdrun.files import canonical_hash
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import COMPLETED
from kdrun.stages.heads import require_no_heads
from kdrun.stages.networks import card_facts, dataset_facts, make_card, new_network
from kdrun.stages.recording import recording
from kdrun.stages.session import Session, open_data
from kdrun.stages.train_teacher import ReadyTeacher, ready_teacher
from kdrun.ui import tables
from kdrun.ui.reporter import Reporter


def teacher_identity(config: TrainTeacherConfig) -> str:
    """Equal for two configurations that compute the same thing."""
    plain = train_teacher_plain(config)
    for name in (*config.runtime.__dataclass_fields__, "logger"):
        plain.pop(name)
    return canonical_hash(plain)


def run_train_teacher(
    config: TrainTeacherConfig, folder: RunFolder, session: Session, argv: Sequence[str]
) -> dict[str, Any]:
    """Do (or continue) the run of `folder`; returns its result."""
    schedule = config.teacher.schedule
    check_precision(schedule.precision, session.device)
    known: dict[str, Any] = {
        "identity": teacher_identity(config),
        "dataset": None,
        "seed": config.teacher.seed,
        "epochs": schedule.epochs,
        "device": str(session.device),
        "precision": schedule.precision,
        "teachers": [],
        "time": None,
    }
    with recording(folder, session, "train-teacher", train_teacher_plain(config), argv, known):
        dataset = open_data(session, config.dataset, config.val_fraction)
        folder.result.update(dataset=dataset_facts(dataset))
        size = config.teacher.image_size
        network = new_network(config.teacher.network, dataset, config.teacher.seed, "teacher", size)
        if config.teacher.checkpoint is None:
            require_no_heads(network)
        card = make_card(config.teacher.network, network, dataset, {}, size)
        session.reporter.heading("kdrun train-teacher")
        session.reporter.facts(
            [
                ("data", tables.dataset_words(dataset_facts(dataset))),
                ("teacher", tables.network_words(card_facts(card))),
                ("schedule", tables.schedule_words(schedule)),
                ("device", f"{session.device_line()}, {schedule.precision}"),
                ("seed", str(config.teacher.seed)),
                ("folder", str(folder.path)),
                *(("note", note) for note in dataset.notes),
            ]
        )
        teacher = ready_teacher(
            config.teacher, config.dataset, config.val_fraction, dataset, session
        )
        folder.result.update(
            status=COMPLETED,
            teachers=[teacher.facts()],
            time={"teacher_seconds": round(teacher.seconds, 3)},
        )
        _show(teacher, folder.path, session.reporter)
    return folder.result.values


def _show(teacher: ReadyTeacher, folder: Path, reporter: Reporter) -> None:
    reporter.heading("Result")
    reporter.show(tables.teacher_table([teacher.facts()]))
    best = teacher.card.extra.get("best_val")
    if best:
        reporter.say(
            f"  best on validation: epoch {best['epoch']} ({best['val_top1']:.2f} %); "
            "the last epoch is the teacher"
        )
    stopped = teacher.card.extra.get("stopped_early")
    if stopped:
        reporter.say(f"  {tables.stopped_words(stopped)}")
    reporter.say(f"  weights: {teacher.path}")
    reporter.say(f"  folder: {folder}")
    reporter.say("next:", style="bold")
    reporter.say(
        "  kdrun distill with the same dataset and teacher settings finds it by itself, or"
    )
    reporter.say(f"  kdrun distill teacher.checkpoint={teacher.path.parent} student=...")
