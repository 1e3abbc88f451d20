"""The measured entries of a distillation's `result.json`, and its final screen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.distillation.ensemble import agreement, ensemble_entry
from kdrun.distillation.networks import card_to_dict
from kdrun.distillation.next_command import after_distill
from kdrun.distillation.teacher import Teacher
from kdrun.distillation.train import Trained
from kdrun.engine.metrics import Evaluation
from kdrun.models.card import NetworkCard
from kdrun.runs.result import ResultFile, RunResult
from kdrun.ui import tables
from kdrun.ui.head_tables import error_table
from kdrun.ui.reporter import Reporter
from kdrun.ui.transfer_tables import class_table


@dataclass(frozen=True)
class TrainedStudent:
    """The student of a run, trained and saved.

    student_entries: further entries of `student` in `result.json`, such as its heads.
    run_entries: further entries of the run, such as networks trained with the student.
    """

    card: NetworkCard
    training: Trained
    student_entries: dict[str, Any]
    run_entries: dict[str, Any]


def add_metrics(
    result: ResultFile,
    student: TrainedStudent,
    teachers: list[Teacher],
    ensemble: Evaluation | None,
) -> None:
    """Write the measured entries of a run.

    teachers: of the run. ensemble: their mean answer, if there are several; the student's agreement
    is with it, else with the only teacher.
    """
    training = student.training
    test, state = training.test.metrics, training.state
    reference = ensemble or (teachers[0].test if teachers else None)
    baseline = RunResult.from_dict(result.values, check=False).alone.test.top1
    entries: dict[str, Any] = {
        "student": {
            **card_to_dict(student.card),
            **training.test.to_dict(),
            "best_val": training.best_val,
            "stopped_early": training.stopped_early,
            **training.ema_entry,
            **student.student_entries,
        },
        "agreement": None if reference is None else agreement(training.test, reference),
        "gain": None if baseline is None else test.top1 - baseline,
        "time": {
            "seconds": round(state.seconds, 3),
            "images_per_second": round(state.images / max(state.seconds, 1e-9), 1),
            "data_seconds": round(state.data_seconds, 3),
            "teacher_seconds": round(sum(teacher.seconds for teacher in teachers), 3),
        },
        **student.run_entries,
    }
    if ensemble is not None:
        entries["teacher_ensemble"] = ensemble_entry(len(teachers), ensemble, training.test)
    result.update(**entries)


def show_result(folder: Path, result: dict[str, Any], reporter: Reporter) -> None:
    """The result table, a summary, and suggested next commands."""
    reporter.heading("Result")
    typed = RunResult.from_dict(result, check=False)
    reporter.show(tables.result_table(typed))
    classes = class_table(typed)
    if classes is not None:
        reporter.show(classes)
    if typed.student.heads:
        reporter.show(error_table(typed))
    for line in tables.format_summary(typed):
        reporter.say(f"  {line}")
    reporter.say(f"  folder: {folder}")
    reporter.say("next:", style="bold")
    for command in after_distill(typed, folder):
        reporter.say(f"  {command}")
