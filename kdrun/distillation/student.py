"""Train the student of one run, save it, and measure it and the models trained with it."""

from dataclasses import dataclass
from typing import Any

from kdrun.config.dump import distill_plain
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.data.transfer import TransferSet
from kdrun.distillation.auxiliary_models import measure_auxiliary_models
from kdrun.distillation.averaged import save_averaged
from kdrun.distillation.build import build_scheme
from kdrun.distillation.metrics import TrainedStudent
from kdrun.distillation.networks import Member, make_card
from kdrun.distillation.prepare_teachers import require_finite_teachers
from kdrun.distillation.run_identity import settings_identity
from kdrun.distillation.session import Session
from kdrun.distillation.teacher import Teacher
from kdrun.distillation.token_heads import student_heads
from kdrun.distillation.train import Recipe, Trained, run_training
from kdrun.distillation.transfer import left_out_metrics
from kdrun.engine import distributed
from kdrun.engine.diagnostics import NonFiniteLossError
from kdrun.engine.finite import diverging
from kdrun.models.card import NetworkCard, save_network
from kdrun.models.saved_state import REMEDY, is_complete
from kdrun.report.trackers import open_tracker
from kdrun.runs.folder import RunFolder
from kdrun.schemes.base import StudentScheme
from kdrun.teachers.cached import cache_entries

STEM = "student"


@dataclass(frozen=True)
class StudentRun:
    """Inputs of a student's training and its run folder.

    dataset: all training images, validation and test split. transfer: what the student trains on.
    """

    config: DistillConfig
    dataset: Dataset
    transfer: TransferSet
    teachers: list[Teacher]
    session: Session
    folder: RunFolder


def train_student(run: StudentRun) -> TrainedStudent:
    """Train (or resume) the student, measure it, and save its weights and card in the run folder.

    Raises TrainingError when the loss or the outputs are not finite, Interrupted when stopped.
    """
    student, scheme = build_scheme(run.config, run.transfer.dataset, run.teachers, run.session)
    trained = _train(run, scheme)
    heads, left_out = _student_metrics(run, student, scheme, trained)
    card_entries = {"objective": scheme.describe(), **data_entries(run.config, run.dataset)}
    auxiliary = measure_auxiliary_models(
        run.config, scheme, run.dataset, run.session, run.folder, card_entries
    )
    card_entries |= {**trained.test.to_dict(), **left_out}
    card = _save(run, student, trained, card_entries)
    run.folder.checkpoints.finish()
    run_entries = {**auxiliary, **_cost_entries(run, scheme, trained)}
    return TrainedStudent(card, trained, {**heads, **left_out}, run_entries)


def _train(run: StudentRun, scheme: StudentScheme) -> Trained:
    """Train on the transfer set; a non-finite loss is traced to the teachers first."""
    config, folder, session = run.config, run.folder, run.session
    recipe = Recipe(
        config.dataset, config.augment, config.schedule, config.seed, run.transfer.labelled
    )
    with open_tracker(config.logger, folder.path, session.reporter.warn) as track:
        try:
            return run_training(
                scheme,
                session,
                run.transfer.dataset,
                recipe,
                folder.checkpoints,
                settings_identity(config),
                folder.write_metrics,
                track,
                folder.result,
            )
        except NonFiniteLossError:
            images = run.transfer.dataset
            require_finite_teachers(config, images, run.teachers, scheme, session)
            raise


def _student_metrics(
    run: StudentRun, student: Member, scheme: StudentScheme, trained: Trained
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(entries on the accuracy per head, and on the classes that the transfer set leaves out)."""
    with diverging("the student", "test"):
        heads = student_heads(student, run.config, run.dataset, run.session)
    with diverging("the student", "measured"):
        left_out = left_out_metrics(
            scheme.measured,
            trained.test.predictions,
            run.config,
            run.dataset,
            run.transfer,
            run.session,
        )
    return heads, left_out


def data_entries(config: DistillConfig, dataset: Dataset) -> dict[str, Any]:
    """The data of a training, as its networks' cards hold it."""
    return {
        "dataset": distill_plain(config)["dataset"],
        "fingerprint": dataset.fingerprint,
        "val_fraction": config.val_fraction,
        "pixel_type": dataset.pixel_type,
        **dataset.pixel_metadata,
    }


def _save(
    run: StudentRun, student: Member, trained: Trained, entries: dict[str, Any]
) -> NetworkCard:
    """Write the weights and the card, and those of the averaged weights."""
    student.network.cpu()
    card = make_card(student.config, student.network, run.dataset, entries)
    with distributed.main_first():
        save_averaged(run.folder.path, STEM, trained, card)
        save_network(run.folder.path, STEM, student.network, card)
    if card.code and not is_complete(student.network, card.network, card.built_for):
        run.session.reporter.warn(
            f"student.safetensors will not answer as measured here: in training, {REMEDY}."
        )
    return card


def _cost_entries(run: StudentRun, scheme: StudentScheme, trained: Trained) -> dict[str, Any]:
    """Teacher cache hits and compile time, for the screen and `result.json`."""
    entries: dict[str, Any] = {}
    caches = cache_entries(scheme.frozen_teachers)
    if caches:
        entries["teacher_cache"] = caches
    for cache in caches:
        run.session.reporter.say(
            f"  teacher cache: {cache['found_percent']:.1f} % hits of {cache['images']:,} lookups, "
            f"{cache['computed']:,} images computed"
        )
    if scheme.compile_seconds:
        entries["compile_seconds"] = round(scheme.compile_seconds, 1)
        run.session.reporter.say(
            f"  compiled in {scheme.compile_seconds:.1f} s of {trained.state.seconds:.0f} s of "
            "training"
        )
    return entries
