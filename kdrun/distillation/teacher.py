"""Stage 1: a frozen, measured teacher: loaded from a file, found in the store, or trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kdrun.config.schema import DatasetConfig, NetworkConfig, TeacherConfig, named_teachers
from kdrun.data.dataset import Dataset
from kdrun.distillation.get_or_train import get_or_train
from kdrun.distillation.loaded_teacher import load_teacher, network_name
from kdrun.distillation.networks import card_to_dict
from kdrun.distillation.session import Session, eval_loader
from kdrun.distillation.teacher_check import check_loaded, placed
from kdrun.distillation.teacher_recipe import TeacherRecipe
from kdrun.engine.finite import refusing
from kdrun.engine.metrics import Evaluation, evaluate
from kdrun.models.card import NetworkCard
from kdrun.runs.folder import RunFolder
from kdrun.schemes.base import freeze
from kdrun.teachers.accuracy import check_accuracy, is_measured_on
from kdrun.teachers.store import TeacherStore
from kdrun.ui import format


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher, measured on the test split by this command.

    path: its weights. reused: not trained by this command. seconds: training time in this command.
    """

    network: nn.Module
    config: NetworkConfig
    card: NetworkCard
    path: Path
    reused: bool
    test: Evaluation
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Its entry in `result.json`."""
        return {
            **card_to_dict(self.card),
            "checkpoint": str(self.path),
            "sha256": self.card.sha256,
            "reused": self.reused,
            **self.test.to_dict(),
            "best_val": self.card.extra.get("best_val"),
            **({"ema": self.card.extra["ema"]} if "ema" in self.card.extra else {}),
        }


def get_or_train_teachers(
    configs: Sequence[TeacherConfig],
    data: DatasetConfig,
    val_fraction: float,
    dataset: Dataset,
    session: Session,
    folder: RunFolder,
) -> list[Teacher]:
    """Prepare each teacher and record it in the result of `folder`."""
    teachers: list[Teacher] = []
    for number, (where, config) in enumerate(named_teachers(configs), 1):
        recipe = TeacherRecipe(config, data, val_fraction, dataset, session)
        which = f" {number} of {len(configs)}" if len(configs) > 1 else ""
        session.reporter.heading(f"Stage 1: teacher{which} {network_name(config)}")
        teachers.append(_get_once(recipe, where))
        folder.result.update(teachers=[teacher.to_dict() for teacher in teachers])
    return teachers


def _get_once(recipe: TeacherRecipe, where: str) -> Teacher:
    """`get_or_train_teacher`, called once for all jobs that share the session."""
    session = recipe.session
    called: list[bool] = []

    def get() -> Teacher:
        called.append(True)
        return get_or_train_teacher(replace(recipe, session=session.unshared()), where)

    teacher = session.once(("teacher", recipe.config, recipe.data, recipe.val_fraction), get)
    return teacher if called else replace(teacher, reused=True, seconds=0.0)


def get_or_train_teacher(recipe: TeacherRecipe, where: str = "teacher") -> Teacher:
    """Load `teacher.checkpoint`; without one, find the teacher in the store or train it.

    where: its name in settings, for errors.
    Raises CheckpointError for damaged or incompatible files, Interrupted when stopped.
    """
    if recipe.config.checkpoint is not None:
        return _from_file(recipe, where)
    trained = get_or_train(recipe, recipe.session.reporter)
    TeacherStore(recipe.session.output_root).tidy(recipe.entry)
    return _from_store(recipe, trained.training_seconds)


def _from_store(recipe: TeacherRecipe, training_seconds: float | None) -> Teacher:
    """Load and measure. training_seconds: None if it was found."""
    entry, config, session = recipe.entry, recipe.config, recipe.session
    network, card = entry.load()
    remedy = f"delete {entry.folder} to train it again"
    with refusing(f"The teacher {entry.weights}", network, "test", _sentence(remedy)):
        test = _measure(network, card, recipe)
    check_accuracy(test, card, entry.weights, config.runtime, session.reporter.warn, remedy)
    reused = training_seconds is None
    source = f"{'from the store' if reused else 'saved to'}: {entry.weights}"
    _say(session, config.network.name, test, source)
    return Teacher(
        freeze(network),
        config.network,
        card,
        entry.weights,
        reused,
        test,
        training_seconds or 0.0,
    )


def _from_file(recipe: TeacherRecipe, where: str) -> Teacher:
    """Load `teacher.checkpoint` and check it on validation or training images.

    A teacher whose card states its accuracy on these test images is checked against the card.
    """
    config, dataset, session = recipe.config, recipe.dataset, recipe.session
    loaded = load_teacher(config, dataset, where)
    card, resized = loaded.card, config.image_size is not None
    has_accuracy = loaded.has_card and not resized and is_measured_on(card, recipe.data, dataset)
    name = f"The teacher {loaded.path}"
    remedy = f"Name other weights: {where}.checkpoint=..."
    if not has_accuracy:
        with refusing(name, loaded.network, "training or validation", remedy):
            check_loaded(loaded, recipe, where)
    with refusing(name, loaded.network, "test", remedy):
        test = _measure(loaded.network, card, recipe)
    if has_accuracy:
        warn, remedy = session.reporter.warn, "name another file"
        check_accuracy(test, card, loaded.path, config.runtime, warn, remedy)
    _say(session, card.name, test, f"loaded: {loaded.path}")
    if not loaded.has_card and dataset.val is not None:
        session.reporter.say(
            "  note: these weights were probably trained on images that are held out for "
            "validation here, so only the test split shows how good they are"
        )
    return Teacher(freeze(loaded.network), loaded.config, card, loaded.path, True, test, 0.0)


def _measure(network: nn.Module, card: NetworkCard, recipe: TeacherRecipe) -> Evaluation:
    """Evaluate on the test split, in float32."""
    dataset, session = recipe.dataset, recipe.session
    batch_size = recipe.config.schedule.eval_batch_size
    session.place(network)
    model = session.place(placed(network, card, dataset))
    batches = eval_loader(session, dataset.test, dataset.normalisation, recipe.data, batch_size)
    return evaluate(model, batches, session.device, "fp32", dataset.test.extra_metrics)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _say(session: Session, name: str, test: Evaluation, source: str) -> None:
    top1 = format.percent(test.metrics.top1)
    line = f"  teacher {name}: test top-1 {top1} % ({source})"
    if source.startswith("saved"):  # trained just now
        session.reporter.milestone(line)
    else:
        session.reporter.say(line)
