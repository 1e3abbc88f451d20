"""A distillation's header and the lines between its stages."""

from collections.abc import Sequence

from kdrun.config import unused
from kdrun.config.augment import from_crop_flip
from kdrun.config.schema import DistillConfig
from kdrun.distillation.data_rows import data_rows
from kdrun.distillation.ensemble import ensemble_entry
from kdrun.distillation.generations import Generation, format_generations
from kdrun.distillation.initial_weights import format_start
from kdrun.distillation.networks import card_to_dict
from kdrun.distillation.prepare import PreparedRun
from kdrun.distillation.session import Session
from kdrun.engine.metrics import Evaluation
from kdrun.engine.speed import auto_note, images_seen, slow_settings
from kdrun.losses.ensemble import SOFT_TARGETS
from kdrun.models.card import NetworkCard
from kdrun.runs.folder import RunFolder
from kdrun.runs.result import TransferResult
from kdrun.ui import format, tables
from kdrun.ui.augmentation import format_augment
from kdrun.ui.transfer_tables import format_transfer

Rows = list[tuple[str, str]]
VISION_TRANSFORMER = "kdrun.models.vit.VisionTransformer"


def show_header(run: PreparedRun) -> None:
    """Show the data, networks, objective and notes."""
    run.session.reporter.heading("kdrun distill")
    config, objective = run.config, run.plans[-1].objective
    transfer = TransferResult.from_dict(run.folder.result.values["transfer"] or {}, check=False)
    rows = data_rows(run.dataset)
    if transfer:
        rows.append(("transfer", format_transfer(transfer)))
    rows += _network_rows(run)
    rows += _scheme_rows(run)
    rows += [
        ("objective", objective),
        ("schedule", tables.format_schedule(config.schedule)),
        *_augment_rows(config),
        ("device", f"{run.session.device_line()}, {config.schedule.precision}"),
        ("seed", str(config.seed)),
        ("folder", str(run.folder.path)),
    ]
    rows += [("note", note) for note in dict.fromkeys(_notes(run))]
    run.session.reporter.facts(rows)


def _network_rows(run: PreparedRun) -> Rows:
    config, plan = run.config, run.plans[-1]
    rows: Rows = []
    if config.scheme.uses_teacher != "student":
        teachers = [_network(card) for card in run.plans[0].teachers]
        rows += tables.counted_rows("teacher", teachers)
    if config.scheme.rounds is not None and config.scheme.rounds.assistants:
        rows += [("assistant", _network(earlier.student)) for earlier in run.plans[:-1]]
    rows.append(("student", _network(plan.student)))
    if config.start is not None:
        rows.append(("starts from", format_start(config.start, list(plan.start))))
    return rows + [("peer", _network(card)) for card in plan.peers]


def _augment_rows(config: DistillConfig) -> Rows:
    """Augmentation beyond the data set's usual crops and flips."""
    if config.augment == from_crop_flip(config.dataset.augment):
        return []
    return [("augment", format_augment(config.augment))]


def _scheme_rows(run: PreparedRun) -> Rows:
    scheme = run.config.scheme
    rows = [("scheme", text) for text in format_generations(run.config, run.generations)]
    if scheme.uses_teacher is False:
        rows.append(("scheme", f"{scheme.name}: no teacher is used"))
    if scheme.uses_teacher == "student":
        rows.append(("scheme", f"{scheme.name}: the teacher is the student trained alone"))
    return rows


def _network(card: NetworkCard) -> str:
    return tables.format_network(card_to_dict(card))


def _notes(run: PreparedRun) -> list[str]:
    notes = [*run.dataset.notes, *run.plans[-1].notes]
    single = all(len(generation.config.teachers) < 2 for generation in run.generations)
    if run.config.ensemble.average == SOFT_TARGETS and single:
        notes.append("teacher.average=soft_targets has no effect: there is one teacher")
    student, optimizer = run.config.student, run.config.schedule.optimizer
    if student.target == VISION_TRANSFORMER and optimizer == "sgd":
        name = student.name
        notes.append(f"{name} is a transformer and usually trains better with schedule=adamw")
    notes += auto_note(run.session.device) + _slow_settings(run)
    return notes + [str(setting) for setting in unused.changed(run.config)]


def _slow_settings(run: PreparedRun) -> list[str]:
    """Warn about settings that slow this run down on this machine."""
    config, plan = run.config, run.plans[-1]
    per_image = sum(card.flops for card in plan.teachers) + 3 * plan.student.flops
    images = images_seen(config.schedule, len(run.dataset.train_index))
    return slow_settings(
        config.schedule.precision, config.runtime, run.session.device, per_image * images
    )


def format_stage_2(config: DistillConfig, generations: Sequence[Generation]) -> str:
    """The heading of the student's training."""
    if config.scheme.rounds is not None:
        return f"{generations[-1].title.capitalize()}: distil {config.student.name}"
    if config.scheme.uses_teacher is True:
        return f"Stage 2: {'distil' if config.teachers else 'train'} {config.student.name}"
    return f"Stage 2: {config.student.name} by scheme={config.scheme.name}"


def show_ensemble(count: int, ensemble: Evaluation, session: Session, folder: RunFolder) -> None:
    """Show and record the metrics of the teacher ensemble."""
    folder.result.update(teacher_ensemble=ensemble_entry(count, ensemble))
    top1 = format.percent(ensemble.metrics.top1)
    session.reporter.say(
        f"  ensemble of the {count} teachers (mean probabilities): test top-1 {top1} %"
    )
