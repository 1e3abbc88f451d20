"""Both stages: the teacher, the student alone, and the student distilled."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kdrun.config.dump import distill_plain
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.data.transfer import TransferSet
from kdrun.distillation.baseline import alone_argv, find_or_train_alone
from kdrun.distillation.build import Plan, dry_run_build
from kdrun.distillation.early_checks import network_checks
from kdrun.distillation.ensemble import teachers_together
from kdrun.distillation.generations import (
    EarlierGenerations,
    Round,
    rounds_facts,
    rounds_of,
    run_earlier,
)
from kdrun.distillation.initial_weights import refuse_changed, start_facts, start_identity
from kdrun.distillation.metrics import figures, show_result
from kdrun.distillation.networks import (
    dataset_facts,
)
from kdrun.distillation.recording import recording
from kdrun.distillation.run_header import say_joint, say_plan, stage_2_words
from kdrun.distillation.run_identity import identity, run_name
from kdrun.distillation.session import Session, open_data
from kdrun.distillation.student import StudentRun, train_student
from kdrun.distillation.teacher import Teacher, get_or_train_teachers
from kdrun.distillation.token_heads import without_tokens
from kdrun.distillation.transfer import NO_ALONE, open_transfer, transfer_facts
from kdrun.engine.devices import check_precision
from kdrun.errors import TrainingError
from kdrun.losses.objective import Objective, objective_of
from kdrun.report.trackers import require_tracker
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import read_result
from kdrun.runs.result import COMPLETED
from kdrun.runs.search import group_folder
from kdrun.teachers.fingerprint import fingerprint, network_recipe


@dataclass(frozen=True)
class ParentRun:
    """What a run that is a part of another one takes from it; the other one says the rest.

    teachers: those of a round of distillation; none of the student alone.
    mark: what `result.json` says from the first second, by which it is found again.
    """

    dataset: Dataset
    mark: dict[str, str]
    teachers: tuple[Teacher, ...] = ()


def run_distill(
    config: DistillConfig,
    folder: RunFolder,
    session: Session,
    argv: Sequence[str],
    within: ParentRun | None = None,
) -> dict[str, Any]:
    """Do (or continue) the run of `folder`; returns its result.

    within: of a run that is a part of another one.
    """
    objective = objective_of(config)
    check_precision(config.schedule.precision, session.device)
    refuse_changed(config, read_result(folder.path))
    # everything that can be refused is, before the run's folder is made
    given = within.dataset if within else None
    checks = network_checks(config)
    dataset = given or open_data(session, config.dataset, config.val_fraction, checks)
    transfer = open_transfer(config, dataset, session)
    rounds = rounds_of(config)
    plans = [dry_run_build(one.config, transfer.dataset, one.given) for one in rounds]
    require_tracker(config.logger)
    with recording(
        folder,
        session,
        "distill",
        distill_plain(config),
        argv,
        {**_known(config, objective, session), **(within.mark if within else {})},
        part=within is not None,
    ):
        digest = _student_digest(config, transfer.dataset)
        folder.result.update(**_inputs(config, dataset, transfer, plans[-1], digest))
        if within is None:
            say_plan(config, rounds, plans, dataset, session, folder)
        alone = None
        if config.scheme.uses_teacher == "student":
            alone = _alone(config, dataset, digest, session, folder, argv)
        teachers = _teachers(config, dataset, session, folder, alone, within)
        joint = teachers_together(config, [one.test for one in teachers], dataset)
        if joint is not None and within is None:
            say_joint(len(teachers), joint, session, folder)
        if alone is None and config.alone and not config.labels_only:
            _alone_for_comparison(config, dataset, transfer, digest, session, folder, argv)
        earlier = _earlier(config, rounds, teachers, alone, dataset, session, argv)
        if within is None:
            session.reporter.heading(stage_2_words(config, rounds))
        taught = train_student(
            StudentRun(earlier.config, dataset, transfer, earlier.teachers, session, folder)
        )
        folder.result.update(**figures(taught, teachers, joint, folder.result.values.get("alone")))
        more = rounds_facts(config, earlier, taught, folder, dataset)
        folder.result.update(status=COMPLETED, **more)
        if within is None:
            show_result(folder.path, folder.result.values, session.reporter)
    return folder.result.values


def _inputs(
    config: DistillConfig, dataset: Dataset, transfer: TransferSet, plan: Plan, digest: str
) -> dict[str, Any]:
    """The entries of `result.json` that follow from the opened data and the networks."""
    return {
        "dataset": dataset_facts(dataset),
        "transfer": transfer_facts(config.transfer, dataset, transfer),
        "fingerprint": digest if config.labels_only else None,
        "objective": plan.objective,
        **plan.facts,
    }


def _known(config: DistillConfig, objective: Objective, session: Session) -> dict[str, Any]:
    """The entries of `result.json`, in order; what is not known yet is null."""
    return {
        "identity": identity(config),
        "baseline": None,
        "dataset": None,
        "transfer": None,
        "objective": None,
        "scheme": config.scheme.name,
        "loss": list(config.loss),
        "T": objective.temperature,
        "alpha": objective.alpha,
        "ce": objective.ce_weight,
        "seed": config.seed,
        "epochs": config.schedule.epochs,
        "device": str(session.device),
        "precision": config.schedule.precision,
        "teachers": [],
        "student": None,
        "alone": None,
        "agreement": None,
        "gain": None,
        "time": None,
        **start_facts(config),
    }


def _teachers(
    config: DistillConfig,
    dataset: Dataset,
    session: Session,
    folder: RunFolder,
    alone: dict[str, Any] | None,
    within: ParentRun | None,
) -> list[Teacher]:
    """Stage 1: each teacher in turn. alone: the student trained alone, where it is the teacher."""
    if within is not None:
        folder.result.update(teachers=[one.facts() for one in within.teachers])
        return list(within.teachers)
    configs = config.teachers
    if alone is not None:
        configs = tuple(replace(teacher, checkpoint=alone["run"]) for teacher in configs)
    return get_or_train_teachers(
        configs, config.dataset, config.val_fraction, dataset, session, folder
    )


def _earlier(
    config: DistillConfig,
    rounds: Sequence[Round],
    teachers: list[Teacher],
    alone: dict[str, Any] | None,
    dataset: Dataset,
    session: Session,
    argv: Sequence[str],
) -> EarlierGenerations:
    """All rounds but the last, each a run of its own."""

    def train(one: DistillConfig, folder: RunFolder, ready: list[Teacher]) -> None:
        within = ParentRun(dataset, {"round": identity(one)}, tuple(ready))
        with _naming(f"{one.student.name}, seed {one.seed}"):
            run_distill(one, folder, session.unshared(), argv, within)

    def group(one: DistillConfig) -> Path:
        return group_folder(session.output_root, "distill", one.dataset.name, run_name(one))

    first = alone if config.scheme.rounds is not None else None
    return run_earlier(rounds, teachers, first, group, identity, train, dataset, session)


def _alone_for_comparison(
    config: DistillConfig,
    dataset: Dataset,
    transfer: TransferSet,
    digest: str,
    session: Session,
    run: RunFolder,
    argv: Sequence[str],
) -> None:
    """The baseline of `run`, unless its transfer set has no labels to train it on."""
    if transfer.labelled:
        _alone(config, dataset, digest, session, run, argv)
    else:
        session.reporter.say(f"  student alone {NO_ALONE}")


def _alone(
    config: DistillConfig,
    dataset: Dataset,
    digest: str,
    session: Session,
    run: RunFolder,
    argv: Sequence[str],
) -> dict[str, Any]:
    """The student alone, noted in the result of `run`."""

    def train(alone: DistillConfig, folder: RunFolder) -> None:
        words = alone_argv(argv, config)
        within = ParentRun(dataset, {"baseline": digest})
        with _naming("the student alone"):
            run_distill(alone, folder, session.unshared(), words, within)

    session.reporter.heading(f"Student alone: {config.student.name} on labels only")
    alone = find_or_train_alone(config, digest, session, train)
    run.result.update(alone=alone)
    return alone


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Put what is being trained before the message of a training that fails."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"Training {what}: {error}") from error


def _student_digest(config: DistillConfig, dataset: Dataset) -> str:
    """The fingerprint of this student trained on labels only."""
    recipe = network_recipe(
        without_tokens(config.student),
        config.schedule,
        config.seed,
        config.dataset.augment,
        dataset,
    )
    return fingerprint({**recipe, "objective": "1*CE", **start_identity(config)})
