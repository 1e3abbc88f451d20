"""`kdrun distill`: train or find the teachers and the baseline, then distil the student."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kdrun.config.schema import DistillConfig
from kdrun.distillation.baseline import WITHOUT_LABELS, get_or_train_baseline
from kdrun.distillation.earlier_generations import generation_entries, train_earlier_generations
from kdrun.distillation.ensemble import ensemble_of_teachers
from kdrun.distillation.metrics import add_metrics, show_result
from kdrun.distillation.prepare import PreparedRun, prepare, record
from kdrun.distillation.pruned import with_pruned_start
from kdrun.distillation.run_header import format_stage_2, show_ensemble, show_header
from kdrun.distillation.session import Session
from kdrun.distillation.student import StudentRun, train_student
from kdrun.distillation.teacher import Teacher, get_or_train_teachers
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import COMPLETED


def run_distill(
    config: DistillConfig, folder: RunFolder, session: Session, argv: Sequence[str]
) -> dict[str, Any]:
    """Start or resume the run of `folder`; returns its `result.json`.

    All checks run before the folder is created.
    """
    run = prepare(config, folder, session, argv)
    result = folder.result
    with record(run):
        show_header(run)
        self_distilled = config.scheme.uses_teacher == "student"
        baseline = get_or_train_baseline(run) if self_distilled else None
        teachers = _teachers(run, baseline)
        run = with_pruned_start(run, teachers)
        config = run.config
        ensemble = ensemble_of_teachers(config, [t.test for t in teachers], run.dataset)
        if ensemble is not None:
            show_ensemble(len(teachers), ensemble, session, folder)
        if config.alone and baseline is None and not config.labels_only:
            _baseline_for_comparison(run)
        first = baseline if config.scheme.rounds is not None else None
        earlier = train_earlier_generations(run, teachers, first)
        session.reporter.heading(format_stage_2(config, run.generations))
        trained = train_student(
            StudentRun(earlier.config, run.dataset, run.transfer, earlier.teachers, session, folder)
        )
        # agreement refers to the run's teachers, not to the last generation's
        add_metrics(result, trained, teachers, ensemble)
        result.update(status=COMPLETED, **generation_entries(run, earlier, trained))
        show_result(folder.path, result.values, session.reporter)
    return result.values


def _teachers(run: PreparedRun, baseline: dict[str, Any] | None) -> list[Teacher]:
    """Stage 1. baseline: the baseline's entry, if the baseline is the teacher."""
    configs = run.config.teachers
    if baseline is not None:
        configs = tuple(replace(teacher, checkpoint=baseline["run"]) for teacher in configs)
    return get_or_train_teachers(
        configs, run.config.dataset, run.config.val_fraction, run.dataset, run.session, run.folder
    )


def _baseline_for_comparison(run: PreparedRun) -> None:
    if run.transfer.labelled:
        get_or_train_baseline(run)
    else:
        run.session.reporter.say(f"  student alone: {WITHOUT_LABELS}")
