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
from kdrun.engine import distributed
from kdrun.engine.devices import check_precision
from kdrun.engine.finite import diverging
from kdrun.engine.trouble import NonFiniteLossError
from kdrun.errors import TrainingError
from kdrun.files import canonical_hash
from kdrun.losses.objective import Objective, objective_of
from kdrun.models.card import save_network
from kdrun.report.trackers import open_tracker, require_tracker
from kdrun.runs.folder import RunFolder, counted_names
from kdrun.runs.reading import read_result
from kdrun.runs.result import COMPLETED
from kdrun.runs.search import group_folder
from kdrun.stages import teaching
from kdrun.stages.alone import alone_argv, find_or_train_alone
from kdrun.stages.announce import say_joint, say_plan, stage_2_words
from kdrun.stages.assembly import assemble, rehearse
from kdrun.stages.companions import measure_companions
from kdrun.stages.early_checks import network_checks
from kdrun.stages.figures import Taught, figures, show_result
from kdrun.stages.heads import student_heads, without_tokens
from kdrun.stages.networks import (
    dataset_facts,
    make_card,
)
from kdrun.stages.recording import recording
from kdrun.stages.rounds import (
    Earlier,
    Round,
    rounds_facts,
    rounds_of,
    run_earlier,
)
from kdrun.stages.session import Session, open_data
from kdrun.stages.start import refuse_changed, start_facts, start_identity
from kdrun.stages.together import teachers_together
from kdrun.stages.train_teacher import ReadyTeacher, ready_teachers
from kdrun.stages.training import Recipe, run_training
from kdrun.stages.transfer import NO_ALONE, left_out_figures, open_transfer, transfer_facts
from kdrun.teachers.fingerprint import fingerprint, network_recipe

STEM = "student"


def run_name(config: DistillConfig) -> str:
    """`<teachers>-<student>-<losses>`; the scheme's name where it has no teacher."""
    teachers = counted_names(teacher.network.name for teacher in config.teachers) or "none"
    if config.scheme.rounds is not None:
        teachers = f"{config.scheme.name}+{teachers}"
    elif config.scheme.uses_teacher is not True:
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
    return canonical_hash({**plain, **start_identity(config)})


@dataclass(frozen=True)
class Within:
    """What a run that is a part of another one takes from it; the other one says the rest.

    teachers: those of a round of distillation; none of the student alone.
    mark: what `result.json` says from the first second, by which it is found again.
    """

    dataset: Dataset
    mark: dict[str, str]
    teachers: tuple[ReadyTeacher, ...] = ()


def run_distill(
    config: DistillConfig,
    folder: RunFolder,
    session: Session,
    argv: Sequence[str],
    within: Within | None = None,
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
    plans = [rehearse(one.config, transfer.dataset, one.given) for one in rounds]
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
        folder.result.update(
            dataset=dataset_facts(dataset),
            transfer=transfer_facts(config.transfer, dataset, transfer),
            fingerprint=digest if config.labels_only else None,
            objective=plans[-1].objective,
            **plans[-1].facts,
        )
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
            if transfer.labelled:
                _alone(config, dataset, digest, session, folder, argv)
            else:
                session.reporter.say(f"  student alone {NO_ALONE}")
        earlier = _earlier(config, rounds, teachers, alone, dataset, session, argv)
        if within is None:
            session.reporter.heading(stage_2_words(config, rounds))
        taught = _student(earlier.config, dataset, transfer, earlier.teachers, session, folder)
        folder.result.update(**figures(taught, teachers, joint, folder.result.values.get("alone")))
        more = rounds_facts(config, earlier, taught, folder, dataset)
        folder.result.update(status=COMPLETED, **more)
        if within is None:
            show_result(folder.path, folder.result.values, session.reporter)
    return folder.result.values


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
    within: Within | None,
) -> list[ReadyTeacher]:
    """Stage 1: each teacher in turn. alone: the student trained alone, where it is the teacher."""
    if within is not None:
        folder.result.update(teachers=[one.facts() for one in within.teachers])
        return list(within.teachers)
    configs = config.teachers
    if alone is not None:
        configs = tuple(replace(teacher, checkpoint=alone["run"]) for teacher in configs)
    return ready_teachers(configs, config.dataset, config.val_fraction, dataset, session, folder)


def _earlier(
    config: DistillConfig,
    rounds: Sequence[Round],
    teachers: list[ReadyTeacher],
    alone: dict[str, Any] | None,
    dataset: Dataset,
    session: Session,
    argv: Sequence[str],
) -> Earlier:
    """All rounds but the last, each a run of its own."""

    def train(one: DistillConfig, folder: RunFolder, ready: list[ReadyTeacher]) -> None:
        within = Within(dataset, {"round": identity(one)}, tuple(ready))
        with _naming(f"{one.student.name}, seed {one.seed}"):
            run_distill(one, folder, session.alone(), argv, within)

    def group(one: DistillConfig) -> Path:
        return group_folder(session.output_root, "distill", one.dataset.name, run_name(one))

    first = alone if config.scheme.rounds is not None else None
    return run_earlier(rounds, teachers, first, group, identity, train, dataset, session)


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
        within = Within(dataset, {"baseline": digest})
        with _naming("the student alone"):
            run_distill(alone, folder, session.alone(), words, within)

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
) -> Taught:
    """Stage 2: train the student on the transfer set, save it, and measure what is beside it."""
    student, scheme = assemble(config, transfer.dataset, teachers, session)
    recipe = Recipe(
        config.dataset, config.dataset.augment, config.schedule, config.seed, transfer.labelled
    )
    with open_tracker(config.logger, folder.path, session.reporter.warn) as track:
        try:
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
        except NonFiniteLossError:
            teaching.require_finite_teachers(config, transfer.dataset, teachers, scheme, session)
            raise
    with diverging("the student", "test"):
        heads = student_heads(student, config, dataset, session)
    extra = {
        "objective": scheme.describe(),
        "dataset": distill_plain(config)["dataset"],
        "fingerprint": dataset.fingerprint,
        "val_fraction": config.val_fraction,
        "pixel_type": dataset.pixel_type,
        **dataset.pixel_facts,
    }
    with diverging("the student", "measured"):
        left_out = left_out_figures(
            scheme.measured, trained.test.predictions, config, dataset, transfer, session
        )
    beside: dict[str, Any] = measure_companions(config, scheme, dataset, session, folder, extra)
    student.network.cpu()
    extra = {**extra, **trained.test.facts(), **left_out}
    card = make_card(student.config, student.network, dataset, extra)
    with distributed.main_first():
        save_network(folder.path, STEM, student.network, card)
    folder.checkpoints.finish()
    remembered = teaching.facts(scheme.frozen_teachers)
    if remembered is not None:
        beside["teacher_cache"] = remembered
        teaching.say(scheme.frozen_teachers, session)
    if scheme.compile_seconds:
        beside["compile_seconds"] = round(scheme.compile_seconds, 1)
        words = f"compiled in {scheme.compile_seconds:.1f} s of {trained.state.seconds:.0f} s"
        session.reporter.say(f"  {words} of training")
    return Taught(card, trained, {**(heads or {}), **left_out}, beside)


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
