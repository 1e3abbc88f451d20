"""Both stages: the teacher, the student alone, and the student distilled."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdrun.config import build
from kdrun.config.dump import distill_plain
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.engine.devices import check_precision
from kdrun.files import canonical_hash
from kdrun.losses.objective import Objective, objective_of
from kdrun.models.card import NetworkCard, save_network
from kdrun.models.taps import Tapped
from kdrun.report.trackers import open_tracker
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import COMPLETED
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.supervised import Supervised
from kdrun.stages.alone import alone_argv, find_or_train_alone
from kdrun.stages.networks import (
    Member,
    card_facts,
    dataset_facts,
    final_student,
    make_card,
    new_network,
    own_normalisation,
    tap_networks,
)
from kdrun.stages.recording import recording
from kdrun.stages.session import Session, open_data
from kdrun.stages.train_teacher import ReadyTeacher, ready_teacher
from kdrun.stages.training import Recipe, Trained, run_training
from kdrun.teachers.fingerprint import fingerprint, network_recipe
from kdrun.ui import tables
from kdrun.ui.reporter import Reporter

STEM = "student"


@dataclass(frozen=True)
class Plan:
    """What is known before anything is trained, from putting untrained networks together."""

    objective: Objective
    student: NetworkCard
    teacher: NetworkCard | None


def run_name(config: DistillConfig) -> str:
    """`<teacher>-<student>-<losses>`."""
    teacher = config.teacher.network.name if config.teacher else "none"
    return f"{teacher}-{config.student.name}-{'+'.join(config.loss)}"


def identity(config: DistillConfig) -> str:
    """Equal for two configurations that compute the same thing."""
    plain = distill_plain(config)
    for name in (*config.runtime.__dataclass_fields__, "logger"):
        plain.pop(name)
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
        digest = _student_digest(config, dataset)
        folder.result.update(
            dataset=dataset_facts(dataset),
            fingerprint=digest if config.teacher is None else None,
            baseline=digest if baseline is not None else None,
        )
        plan = rehearse(config, dataset)
        folder.result.update(objective=plan.objective.describe())
        if baseline is None:
            _say_plan(config, plan, dataset, session, folder)
        teachers = _teachers(config, dataset, session, folder)
        if teachers and config.alone:
            session.reporter.heading(f"Student alone: {config.student.name} on labels only")
            folder.result.update(alone=_alone(config, dataset, digest, session, argv))
        if baseline is None:
            what = "distil" if teachers else "train"
            session.reporter.heading(f"Stage 2: {what} {config.student.name}")
        _student(config, dataset, teachers, session, folder)
        folder.result.update(status=COMPLETED)
        if baseline is None:
            show_result(folder.path, folder.result.values, session.reporter)
    return folder.result.values


def _known(config: DistillConfig, objective: Objective, session: Session) -> dict[str, Any]:
    """The entries of `result.json`, in order; what is not known yet is null."""
    return {
        "identity": identity(config),
        "dataset": None,
        "objective": None,
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


def rehearse(config: DistillConfig, dataset: Dataset) -> Plan:
    """Put untrained networks together once, so that what cannot fit is said before training.

    Raises ConfigError for networks, taps, shapes or class counts that do not go together.
    """
    objective = objective_of(config)
    teachers, teacher_card = [], None
    if config.teacher is not None:
        network = new_network(config.teacher.network, dataset, config.teacher.seed, "teacher")
        teacher_card = make_card(config.teacher.network, network, dataset, {})
        teachers.append(Member(network, config.teacher.network, teacher_card.normalisation))
    student = _new_student(config, objective, teachers, dataset)
    card = make_card(student.config, student.network, dataset, {})
    _tap(config, objective, student, teachers, dataset)
    return Plan(objective, card, teacher_card)


def _new_student(
    config: DistillConfig, objective: Objective, teachers: list[Member], dataset: Dataset
) -> Member:
    """The network that is trained and kept."""
    network = new_network(config.student, dataset, config.seed, "student")
    normalisation = own_normalisation(network, dataset.normalisation)
    plain = Member(network, config.student, normalisation)
    return final_student(objective, plain, teachers, dataset, config.seed)


def _tap(
    config: DistillConfig,
    objective: Objective,
    student: Member,
    teachers: list[Member],
    dataset: Dataset,
) -> tuple[Tapped, list[Tapped]]:
    size = config.schedule.batch_size
    return tap_networks(objective, student, teachers, dataset, size, config.seed)


def _say_plan(
    config: DistillConfig, plan: Plan, dataset: Dataset, session: Session, folder: RunFolder
) -> None:
    """The header of a run: what, where, and the objective with its numbers."""
    session.reporter.heading("kdrun distill")
    rows = [("data", tables.dataset_words(dataset_facts(dataset)))]
    if plan.teacher is not None:
        rows.append(("teacher", tables.network_words(card_facts(plan.teacher))))
    rows.append(("student", tables.network_words(card_facts(plan.student))))
    rows.append(("objective", plan.objective.describe()))
    rows.append(("schedule", tables.schedule_words(config.schedule)))
    rows.append(("device", f"{session.device_line()}, {config.schedule.precision}"))
    rows.append(("seed", str(config.seed)))
    rows.append(("folder", str(folder.path)))
    notes = [note for term in plan.objective.term_list() for note in term.notes()]
    rows += [("note", note) for note in [*dataset.notes, *notes]]
    session.reporter.facts(rows)


def _teachers(
    config: DistillConfig, dataset: Dataset, session: Session, folder: RunFolder
) -> list[ReadyTeacher]:
    """Stage 1."""
    if config.teacher is None:
        return []
    session.reporter.heading(f"Stage 1: teacher {config.teacher.network.name}")
    teacher = ready_teacher(config.teacher, config.dataset, config.val_fraction, dataset, session)
    folder.result.update(teachers=[teacher.facts()])
    return [teacher]


def _alone(
    config: DistillConfig, dataset: Dataset, digest: str, session: Session, argv: Sequence[str]
) -> dict[str, Any]:
    def train(alone: DistillConfig, folder: RunFolder) -> None:
        run_distill(alone, folder, session, alone_argv(argv), baseline=dataset)

    return find_or_train_alone(config, digest, session, train)


def _student(
    config: DistillConfig,
    dataset: Dataset,
    teachers: list[ReadyTeacher],
    session: Session,
    folder: RunFolder,
) -> None:
    """Stage 2: train the student, save it, and complete the result."""
    student, scheme = _assemble(config, dataset, teachers, session)
    recipe = Recipe(config.dataset, config.dataset.augment, config.schedule, config.seed)
    with open_tracker(config.logger, folder.path) as track:
        trained = run_training(
            scheme,
            session,
            dataset,
            recipe,
            folder.checkpoints,
            identity(config),
            folder.write_metrics,
            track,
        )
    student.network.cpu()
    extra = {
        "objective": scheme.objective.describe(),
        "test": trained.test.metrics.as_dict(),
        "dataset": distill_plain(config)["dataset"],
        "val_fraction": config.val_fraction,
    }
    card = make_card(student.config, student.network, dataset, extra)
    save_network(folder.path, STEM, student.network, card)
    folder.checkpoints.finish()
    folder.result.update(**_figures(card, trained, teachers, folder.result.values.get("alone")))


def _assemble(
    config: DistillConfig, dataset: Dataset, teachers: list[ReadyTeacher], session: Session
) -> tuple[Member, StudentScheme]:
    """Student, taps, adapters and scheme; shapes are read on the CPU."""
    objective = objective_of(config)
    members = [Member(t.network.cpu(), t.config, t.normalisation) for t in teachers]
    member = _new_student(config, objective, members, dataset)
    student, tapped = _tap(config, objective, member, members, dataset)
    compiled = session.runtime.compile
    if not teachers:
        return member, Supervised(student, objective, compiled)
    for teacher in tapped:
        session.place(teacher)
    scheme: StudentScheme = build.call(
        config.scheme.target,
        config.scheme.kwargs,
        "scheme",
        student=student,
        teachers=tapped,
        objective=objective,
        compiled=compiled,
    )
    return member, scheme


def _figures(
    card: NetworkCard,
    trained: Trained,
    teachers: list[ReadyTeacher],
    alone: dict[str, Any] | None,
) -> dict[str, Any]:
    """The measured part of `result.json`."""
    test, state = trained.test.metrics, trained.state
    agreement = None
    if teachers:
        same = trained.test.predictions == teachers[0].test.predictions
        agreement = 100.0 * float(same.double().mean().item())
    return {
        "student": {**card_facts(card), "test": test.as_dict(), "best_val": trained.best_val},
        "agreement": agreement,
        "gain": test.top1 - alone["test"]["top1"] if alone else None,
        "time": {
            "seconds": round(state.seconds, 3),
            "images_per_second": round(state.images / max(state.seconds, 1e-9), 1),
            "data_seconds": round(state.data_seconds, 3),
            "teacher_seconds": round(sum(teacher.seconds for teacher in teachers), 3),
        },
    }


def show_result(folder: Path, result: dict[str, Any], reporter: Reporter) -> None:
    """The final table, what it means, and what to type next."""
    reporter.heading("Result")
    reporter.show(tables.result_table(result))
    for line in tables.summary_lines(result):
        reporter.say(f"  {line}")
    reporter.say(f"  folder: {folder}")
    reporter.say("next:", style="bold")
    for command in tables.next_commands(result, str(folder)):
        reporter.say(f"  {command}")


def _student_digest(config: DistillConfig, dataset: Dataset) -> str:
    """The fingerprint of this student trained on labels only."""
    recipe = network_recipe(
        config.student, config.schedule, config.seed, config.dataset.augment, dataset
    )
    return fingerprint({**recipe, "objective": "1*CE"})
