"""The measured part of a distillation's `result.json`, and how it is shown at the end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.distillation.ensemble import agreement, facts
from kdrun.distillation.networks import card_facts
from kdrun.distillation.teacher import Teacher
from kdrun.distillation.train import Trained
from kdrun.engine.metrics import Evaluation
from kdrun.models.card import NetworkCard
from kdrun.runs.result import RunResult
from kdrun.ui import tables
from kdrun.ui.head_tables import error_table
from kdrun.ui.reporter import Reporter
from kdrun.ui.transfer_tables import class_table


@dataclass(frozen=True)
class Taught:
    """The student of a run, trained and saved.

    more: further entries of its own, such as those of `student_heads`.
    beside: entries of the run, such as those of `measure_companions`.
    """

    card: NetworkCard
    trained: Trained
    more: dict[str, Any]
    beside: dict[str, Any]


def figures(
    taught: Taught,
    teachers: list[Teacher],
    joint: Evaluation | None,
    alone: dict[str, Any] | None,
) -> dict[str, Any]:
    """The measured part of `result.json`. joint: the answer of several teachers together."""
    card, trained = taught.card, taught.trained
    test, state = trained.test.metrics, trained.state
    answer = joint or (teachers[0].test if teachers else None)
    found = {} if joint is None else {"teacher_ensemble": facts(len(teachers), joint, trained.test)}
    return {
        "student": {
            **card_facts(card),
            **trained.test.facts(),
            "best_val": trained.best_val,
            "stopped_early": trained.stopped_early,
            **taught.more,
        },
        **found,
        "agreement": agreement(trained.test, answer) if answer is not None else None,
        "gain": test.top1 - alone["test"]["top1"] if alone else None,
        "time": {
            "seconds": round(state.seconds, 3),
            "images_per_second": round(state.images / max(state.seconds, 1e-9), 1),
            "data_seconds": round(state.data_seconds, 3),
            "teacher_seconds": round(sum(teacher.seconds for teacher in teachers), 3),
        },
        **taught.beside,
    }


def show_result(folder: Path, result: dict[str, Any], reporter: Reporter) -> None:
    """The final table, what it means, and what to type next."""
    reporter.heading("Result")
    typed = RunResult.from_dict(result, check=False)
    reporter.show(tables.result_table(typed))
    classes = class_table(result)
    if classes is not None:
        reporter.show(classes)
    if result["student"].get("heads"):
        reporter.show(error_table(result))
    for line in tables.summary_lines(typed):
        reporter.say(f"  {line}")
    reporter.say(f"  folder: {folder}")
    reporter.say("next:", style="bold")
    for command in tables.next_commands(typed, str(folder)):
        reporter.say(f"  {command}")
