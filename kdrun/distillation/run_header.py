"""What a distillation says before it starts, and between its stages."""

from collections.abc import Sequence

from kdrun.config import unused
from kdrun.config.schema import DistillConfig
from kdrun.data.dataset import Dataset
from kdrun.distillation.build import Plan
from kdrun.distillation.data_rows import data_rows
from kdrun.distillation.ensemble import facts
from kdrun.distillation.generations import Round, rounds_words
from kdrun.distillation.initial_weights import start_words
from kdrun.distillation.networks import card_facts
from kdrun.distillation.session import Session
from kdrun.engine.metrics import Evaluation
from kdrun.losses.ensemble import SOFT_TARGETS
from kdrun.runs.folder import RunFolder
from kdrun.ui import format, tables
from kdrun.ui.transfer_tables import transfer_words


def say_plan(
    config: DistillConfig,
    rounds: Sequence[Round],
    plans: Sequence[Plan],
    dataset: Dataset,
    session: Session,
    folder: RunFolder,
) -> None:
    """The header of a run: what, where, and the objective with its numbers."""
    session.reporter.heading("kdrun distill")
    plan = plans[-1]
    rows = data_rows(dataset)
    chosen = folder.result.values["transfer"]
    if chosen is not None:
        rows.append(("transfer", transfer_words(chosen)))
    if config.scheme.uses_teacher != "student":
        words = [tables.network_words(card_facts(card)) for card in plans[0].teachers]
        rows += tables.counted_rows("teacher", words)
    if config.scheme.rounds is not None and config.scheme.rounds.assistants:
        rows += [("assistant", tables.network_words(card_facts(p.student))) for p in plans[:-1]]
    rows.append(("student", tables.network_words(card_facts(plan.student))))
    if config.start is not None:
        rows.append(("starts from", start_words(config.start, list(plan.start))))
    rows += [("peer", tables.network_words(card_facts(card))) for card in plan.peers]
    rows += [("scheme", words) for words in rounds_words(config, rounds)]
    if config.scheme.uses_teacher is False:
        rows.append(("scheme", f"{config.scheme.name}: no teacher is trained or read"))
    if config.scheme.uses_teacher == "student":
        rows.append(("scheme", f"{config.scheme.name}: the teacher is the student trained alone"))
    rows.append(("objective", plan.objective))
    rows.append(("schedule", tables.schedule_words(config.schedule)))
    rows.append(("device", f"{session.device_line()}, {config.schedule.precision}"))
    rows.append(("seed", str(config.seed)))
    rows.append(("folder", str(folder.path)))
    notes = [*dataset.notes, *plan.notes]
    if config.ensemble.average == SOFT_TARGETS and all(o.config.teachers[1:] == () for o in rounds):
        notes.append("teacher.average=soft_targets changes nothing: there is one teacher")
    notes += [str(setting) for setting in unused.changed(config)]
    rows += [("note", note) for note in dict.fromkeys(notes)]
    session.reporter.facts(rows)


def stage_2_words(config: DistillConfig, rounds: Sequence[Round]) -> str:
    """The heading above the training of the student that is kept."""
    if config.scheme.rounds is not None:
        return f"{rounds[-1].title.capitalize()}: distil {config.student.name}"
    if config.scheme.uses_teacher is True:
        return f"Stage 2: {'distil' if config.teachers else 'train'} {config.student.name}"
    return f"Stage 2: {config.student.name} by scheme={config.scheme.name}"


def say_joint(count: int, joint: Evaluation, session: Session, folder: RunFolder) -> None:
    """What the teachers answer together, on the screen and in the result."""
    folder.result.update(teacher_ensemble=facts(count, joint))
    session.reporter.say(
        f"  the {count} teachers together (mean of probabilities): "
        f"{format.percent(joint.metrics.top1)} % on the test split"
    )
