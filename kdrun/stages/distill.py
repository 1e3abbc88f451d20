"""Both stages: the teacher, the student alone, and the student distilled."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kdrun.config.dump import distill_plain
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.data.transfer import TransferSet
from kdrun.engine.devices import check_precision
from kdrun.files import canonical_hash
from kdrun.losses.objective import Objective, objective_of
from kdrun.models.card import save_network
from kdrun.report.trackers import open_tracker
from kdrun.runs.folder import RunFolder, counted_names
from kdrun.runs.result import COMPLETED
from kdrun.stages import teaching
from kdrun.stages.alone import alone_argv, find_or_train_alone
from kdrun.stages.assembly import Plan, assemble, rehearse
from kdrun.stages.companions import measure_companions
from kdrun.stages.figures import figures, show_result
from kdrun.stages.heads import student_heads, without_tokens
from kdrun.stages.networks import (
    card_facts,
    dataset_facts,
    make_card,
)
from kdrun.stages.recording import recording
from kdrun.stages.session import Session, open_data
from kdrun.stages.train_teacher import ReadyTeacher, ready_teacher
from kdrun.stages.training import Recipe, run_training
from kdrun.stages.transfer import NO_ALONE, left_out_figures, open_transfer, transfer_facts
from kdrun.teachers.fingerprint import fingerprint, network_recipe
from kdrun.ui import tables
from kdrun.ui.transfer_tables import transfer_words

STEM = "student"


def run_name(config: DistillConfig) -> str:
    """`<teachers>-<student>-<losses>`; the scheme's name where it has no teacher."""
    teachers = counted_names(teacher.network.name for teacher in config.teachers) or "none"
    if config.scheme.uses_teacher is not True:
        peers = [peer.name for peer in config.scheme.peers]
        teachers = "+".join([config.scheme.name, *peers])
    return f"{teachers}-{config.student.name}-{'+'.join(config.loss)}"


def identity(config: DistillConfig) -> str:
    """Equal for two configurations that compute the same thing."""
    plain = distill_plain(config)
    for name in (*config.runtime.__dataclass_fields__, "logger"):
        plain.pop(name)
    for name, node in plain.items():
        if name.startswith("teacher") and isinstance(node, dict):
            plain[name] = teaching.shaping(node)
    return canonical_hash(plain)


def run_distill(
    config: DistillConfig,
    folder: RunFolder,
    session: Session,
    argv: Sequence[str],
    baseline: Dataset | None = None,
) -> dict[str, Any]:
    """Do (or continue) the run of `folder`; returns its result.

    baseline: the data set, when this is the student alone of another run, which says the rest.
    """
    objective = objective_of(config)
    check_precision(config.schedule.precision, session.device)
    with recording(
        folder, session, "distill", distill_plain(config), argv, _known(config, objective, session)
    ):
        dataset = baseline or open_data(session, config.dataset, config.val_fraction)
        transfer = open_transfer(config, dataset, session)
        digest = _student_digest(config, transfer.dataset)
        folder.result.update(
            dataset=dataset_facts(dataset),
            transfer=transfer_facts(config.transfer, dataset, transfer),
            fingerprint=digest if config.labels_only else None,
            baseline=digest if baseline is not None else None,
        )
        plan = rehearse(config, transfer.dataset)
        folder.result.update(objective=plan.objective, **plan.facts)
        if baseline is None:
            _say_plan(config, plan, dataset, session, folder)
        alone = None
        if config.scheme.uses_teacher == "student":
            alone = _alone(config, dataset, digest, session, folder, argv)
        teachers = _teachers(config, dataset, session, folder, alone)
        if alone is None and config.alone and not config.labels_only:
            if transfer.labelled:
                _alone(config, dataset, digest, session, folder, argv)
            else:
                session.reporter.say(f"  student alone {NO_ALONE}")
        if baseline is None:
            session.reporter.heading(_stage_2(config))
        _student(config, dataset, transfer, teachers, session, folder)
        folder.result.update(status=COMPLETED)
        if baseline is None:
            show_result(folder.path, folder.result.values, session.reporter)
    return folder.result.values


def _known(config: DistillConfig, objective: Objective, session: Session) -> dict[str, Any]:
    """The entries of `result.json`, in order; what is not known yet is null."""
    return {
        "identity": identity(config),
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
    }


def _say_plan(
    config: DistillConfig, plan: Plan, dataset: Dataset, session: Session, folder: RunFolder
) -> None:
    """The header of a run: what, where, and the objective with its numbers."""
    session.reporter.heading("kdrun distill")
    rows = [("data", tables.dataset_words(dataset_facts(dataset)))]
    chosen = folder.result.values["transfer"]
    if chosen is not None:
        rows.append(("transfer", transfer_words(chosen)))
    rows += [("teacher", tables.network_words(card_facts(card))) for card in plan.teachers]
    rows.append(("student", tables.network_words(card_facts(plan.student))))
    rows += [("peer", tables.network_words(card_facts(card))) for card in plan.peers]
    if config.scheme.uses_teacher is False:
        rows.append(("scheme", f"{config.scheme.name}: no teacher is trained or read"))
    if config.scheme.uses_teacher == "student":
        rows.append(("scheme", f"{config.scheme.name}: the teacher is the student trained alone"))
    rows.append(("objective", plan.objective))
    rows.append(("schedule", tables.schedule_words(config.schedule)))
    rows.append(("device", f"{session.device_line()}, {config.schedule.precision}"))
    rows.append(("seed", str(config.seed)))
    rows.append(("folder", str(folder.path)))
    rows += [("note", note) for note in dict.fromkeys([*dataset.notes, *plan.notes])]
    session.reporter.facts(rows)


def _stage_2(config: DistillConfig) -> str:
    if config.scheme.uses_teacher is True:
        return f"Stage 2: {'distil' if config.teachers else 'train'} {config.student.name}"
    return f"Stage 2: {config.student.name} by scheme={config.scheme.name}"


def _teachers(
    config: DistillConfig,
    dataset: Dataset,
    session: Session,
    folder: RunFolder,
    alone: dict[str, Any] | None,
) -> list[ReadyTeacher]:
    """Stage 1: each teacher in turn. alone: the student trained alone, where it is the teacher."""
    ready: list[ReadyTeacher] = []
    for teacher in config.teachers:
        if alone is not None:
            teacher = replace(teacher, checkpoint=alone["run"])
        session.reporter.heading(f"Stage 1: teacher {teacher.network.name}")
        ready.append(ready_teacher(teacher, config.dataset, config.val_fraction, dataset, session))
        folder.result.update(teachers=[one.facts() for one in ready])
    return ready


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
        run_distill(alone, folder, session, alone_argv(argv, config), baseline=dataset)

    session.reporter.heading(f"Student alone: {config.student.name} on labels only")
    alone = find_or_train_alone(config, digest, session, train)
    run.result.update(alone=alone)
    return alone


def _student(
    config: DistillConfig,
    dataset: Dataset,
    transfer: TransferSet,
    teachers: list[ReadyTeacher],
    session: Session,
    folder: RunFolder,
) -> None:
    """Stage 2: train the student on the transfer set, save it, and complete the result."""
    student, scheme = assemble(config, transfer.dataset, teachers, session)
    recipe = Recipe(
        config.dataset, config.dataset.augment, config.schedule, config.seed, transfer.labelled
    )
    with open_tracker(config.logger, folder.path, session.reporter.warn) as track:
        trained = run_training(
            scheme,
            session,
            transfer.dataset,
            recipe,
            folder.checkpoints,
            identity(config),
            folder.write_metrics,
            track,
        )
    heads = student_heads(student, config, dataset, session)
    extra = {
        "objective": scheme.describe(),
        "dataset": distill_plain(config)["dataset"],
        "val_fraction": config.val_fraction,
        "pixel_type": dataset.pixel_type,
    }
    left_out = left_out_figures(
        scheme.measured, trained.test.predictions, config, dataset, transfer, session
    )
    beside = measure_companions(config, scheme, dataset, session, folder, extra)
    student.network.cpu()
    extra = {**extra, **trained.test.facts(), **left_out}
    card = make_card(student.config, student.network, dataset, extra)
    save_network(folder.path, STEM, student.network, card)
    folder.checkpoints.finish()
    alone = folder.result.values.get("alone")
    found = figures(card, trained, teachers, alone, {**(heads or {}), **left_out})
    folder.result.update(**found, **beside)
    remembered = teaching.facts(scheme.frozen_teachers)
    if remembered is not None:
        folder.result.update(teacher_cache=remembered)
        teaching.say(scheme.frozen_teachers, session)


def _student_digest(config: DistillConfig, dataset: Dataset) -> str:
    """The fingerprint of this student trained on labels only."""
    recipe = network_recipe(
        without_tokens(config.student),
        config.schedule,
        config.seed,
        config.dataset.augment,
        dataset,
    )
    return fingerprint({**recipe, "objective": "1*CE"})
