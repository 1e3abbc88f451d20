"""Prepare a distillation: open the data, check the settings, start the run record."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from kdrun.config.augment import labels_only
from kdrun.config.dump import distill_plain
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.data.loaders.rendering import check_pixels
from kdrun.data.transfer import TransferSet
from kdrun.distillation.build import BuildPlan, dry_run_build
from kdrun.distillation.early_checks import (
    check_student_length,
    check_teacher_lengths,
    network_checks,
)
from kdrun.distillation.generations import Generation, plan_generations
from kdrun.distillation.initial_weights import (
    initial_weights_to_dict,
    refuse_changed,
    start_identity,
    teacher_files_entry,
)
from kdrun.distillation.networks import dataset_to_dict
from kdrun.distillation.recording import recording
from kdrun.distillation.run_identity import identity, own_code_entry
from kdrun.distillation.session import Session, open_data
from kdrun.distillation.token_heads import without_tokens
from kdrun.distillation.transfer import open_transfer, refuse_other_images, transfer_to_dict
from kdrun.engine.devices import check_precision
from kdrun.errors import ConfigError
from kdrun.losses.objective import Objective, objective_of
from kdrun.models.pruned import with_architecture
from kdrun.report.trackers import require_tracker
from kdrun.runs.folder import RunFolder
from kdrun.runs.reading import read_result
from kdrun.teachers.fingerprint import fingerprint, network_recipe


@dataclass(frozen=True)
class PreparedRun:
    """A distillation that has passed every check. Its folder does not exist yet, if it is new.

    dataset: all training images, validation and test split. transfer: what the student trains on.
    generations, plans: one for schemes without generations. The last one is the run's own student.
    digest: fingerprint of this student trained on labels only.
    """

    config: DistillConfig
    objective: Objective
    dataset: Dataset
    transfer: TransferSet
    generations: list[Generation]
    plans: list[BuildPlan]
    digest: str
    session: Session
    folder: RunFolder
    argv: Sequence[str]


def prepare(
    config: DistillConfig,
    folder: RunFolder,
    session: Session,
    argv: Sequence[str],
    dataset: Dataset | None = None,
) -> PreparedRun:
    """Open the data and build untrained networks once. dataset: None opens the configured one.

    Raises ConfigError, DataError or CheckpointError for invalid settings, data or checkpoints.
    """
    objective = objective_of(config)
    _check_strong_view(config, objective)
    check_precision(config.schedule.precision, session.device)
    before = read_result(folder.path)
    refuse_changed(config, before)
    if dataset is None:
        checks = network_checks(config)
        dataset = open_data(session, config.dataset, config.val_fraction, checks)
    transfer = open_transfer(config, dataset, session)
    refuse_other_images(config, before or {}, dataset, transfer)
    config = replace(config, student=with_architecture(config.student, transfer.dataset.info))
    check_pixels(config.augment, transfer.dataset.pixel_type)
    splits = [transfer.dataset.train, *([dataset.train] if config.alone else [])]
    check_student_length(config.schedule, *splits)
    check_teacher_lengths(config.teachers, dataset.train)
    generations = plan_generations(config)
    plans = [
        dry_run_build(generation.config, transfer.dataset, generation.num_given_teachers)
        for generation in generations
    ]
    require_tracker(config.logger)
    digest = baseline_fingerprint(config, transfer.dataset)
    return PreparedRun(
        config, objective, dataset, transfer, generations, plans, digest, session, folder, argv
    )


def plan_student(config: DistillConfig, dataset: Dataset) -> BuildPlan:
    """The networks of a run's last generation, untrained; a pruned student with its architecture.

    dataset: with the transfer set. Raises ConfigError for networks that do not fit.
    """
    config = replace(config, student=with_architecture(config.student, dataset.info))
    last = plan_generations(config)[-1]
    return dry_run_build(last.config, dataset, last.num_given_teachers)


def _check_strong_view(config: DistillConfig, objective: Objective) -> None:
    """Raise ConfigError for `augment.strong` where no loss reads a second view."""
    strong = config.augment.strong
    if strong is not None and not objective.reads_strong_view:
        raise ConfigError(
            f"augment.strong={strong} is the second view of mlkd and crld, and loss="
            f"{'+'.join(config.loss)} reads one view: leave augment.strong out, or set "
            f"augment.policy={strong}."
        )


@contextmanager
def record(run: PreparedRun, marker: dict[str, str] | None = None) -> Iterator[None]:
    """Execute the block as the run of `run.folder`, with all known entries in `result.json`.

    marker: of a child run: the entry by which it is found when it was interrupted.
    """
    with recording(
        run.folder,
        run.session,
        "distill",
        distill_plain(run.config),
        run.argv,
        {**_configured_entries(run), **(marker or {})},
        part=marker is not None,
    ):
        run.folder.result.update(**_data_entries(run))
        yield


def _configured_entries(run: PreparedRun) -> dict[str, Any]:
    """The entries of `result.json`, in order; those not known yet are null."""
    config, objective = run.config, run.objective
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
        "device": str(run.session.device),
        "precision": config.schedule.precision,
        "teachers": [],
        "student": None,
        "alone": None,
        "agreement": None,
        "gain": None,
        "time": None,
        **initial_weights_to_dict(config),
        **({"quantize": config.student.quantize} if config.student.quantize else {}),
        **teacher_files_entry(config.teachers),
        **own_code_entry(distill_plain(config)),
    }


def _data_entries(run: PreparedRun) -> dict[str, Any]:
    """The entries of `result.json` that follow from the data and the networks."""
    plan = run.plans[-1]
    is_baseline = run.config.labels_only and run.objective.ce_weight == 1
    return {
        "dataset": dataset_to_dict(run.dataset),
        "transfer": transfer_to_dict(run.config.transfer, run.dataset, run.transfer),
        "fingerprint": run.digest if is_baseline else None,
        "objective": plan.objective,
        **plan.facts,
    }


def baseline_fingerprint(config: DistillConfig, dataset: Dataset) -> str:
    recipe = network_recipe(
        without_tokens(config.student),
        config.schedule,
        config.seed,
        labels_only(config.augment),
        dataset,
    )
    return fingerprint({**recipe, "objective": "1*CE", **start_identity(config)})
