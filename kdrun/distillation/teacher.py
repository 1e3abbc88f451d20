"""Stage 1: find the teacher, or train it under a lock, or load it from a file."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kdrun.config.dump import dataset_plain
from kdrun.config.schema import AugmentConfig, DatasetConfig, NetworkConfig, TeacherConfig
from kdrun.data.dataset import Dataset
from kdrun.distillation.connect import tap_networks
from kdrun.distillation.loaded_teacher import load_teacher
from kdrun.distillation.networks import (
    Member,
    card_facts,
    make_card,
    new_network,
)
from kdrun.distillation.session import Session, eval_loader
from kdrun.distillation.teacher_check import check_loaded, placed
from kdrun.distillation.train import Recipe, run_training
from kdrun.engine import distributed
from kdrun.engine.finite import refusing
from kdrun.engine.metrics import Evaluation, evaluate
from kdrun.files import make_folder, remove_unfinished
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import Objective
from kdrun.models.card import NetworkCard
from kdrun.runs.folder import RunFolder
from kdrun.runs.metrics import write_metrics
from kdrun.schemes.base import freeze
from kdrun.schemes.supervised import Supervised
from kdrun.teachers.accuracy import check_accuracy, is_measured_on
from kdrun.teachers.fingerprint import fingerprint, network_recipe
from kdrun.teachers.store import StoreEntry, TeacherStore
from kdrun.types import Normalisation
from kdrun.ui import format
from kdrun.world import world


@dataclass(frozen=True)
class Teacher:
    """A frozen teacher, measured on the test split just now.

    path: its weights. reused: it was there before this command. seconds: spent training it now.
    """

    network: nn.Module
    config: NetworkConfig
    card: NetworkCard
    path: Path
    reused: bool
    test: Evaluation
    seconds: float

    @property
    def normalisation(self) -> Normalisation:
        """The constants it was trained with."""
        return self.card.normalisation

    def facts(self) -> dict[str, Any]:
        """Its entry in `result.json`."""
        return {
            **card_facts(self.card),
            "checkpoint": str(self.path),
            "sha256": self.card.sha256,
            "reused": self.reused,
            **self.test.facts(),
            "best_val": self.card.extra.get("best_val"),
        }


def get_or_train_teachers(
    configs: Sequence[TeacherConfig],
    data: DatasetConfig,
    val_fraction: float,
    dataset: Dataset,
    session: Session,
    folder: RunFolder,
) -> list[Teacher]:
    """Stage 1: each teacher in turn, noted in the result of `folder`."""
    ready: list[Teacher] = []
    for number, config in enumerate(configs, 1):
        which = f" {number} of {len(configs)}" if len(configs) > 1 else ""
        session.reporter.heading(f"Stage 1: teacher{which} {config.network.name}")
        where = f"teacher{number}" if len(configs) > 1 else "teacher"
        ready.append(_made_once(config, data, val_fraction, dataset, session, where))
        folder.result.update(teachers=[one.facts() for one in ready])
    return ready


def _made_once(
    config: TeacherConfig,
    data: DatasetConfig,
    val_fraction: float,
    dataset: Dataset,
    session: Session,
    where: str,
) -> Teacher:
    """`ready_teacher`, once for all jobs that share it."""
    made: list[bool] = []

    def make() -> Teacher:
        made.append(True)
        return get_or_train_teacher(config, data, val_fraction, dataset, session.unshared(), where)

    found = session.once(("teacher", config, data, val_fraction), make)
    return found if made else replace(found, reused=True, seconds=0.0)


def get_or_train_teacher(
    config: TeacherConfig,
    data: DatasetConfig,
    val_fraction: float,
    dataset: Dataset,
    session: Session,
    where: str = "teacher",
) -> Teacher:
    """The teacher of a configuration, trained if the store lacks it.

    where: its name in settings, for errors.

    Raises CheckpointError for files that are damaged or do not fit, Interrupted when stopped.
    """
    if config.checkpoint is not None:
        return _from_file(config, data, dataset, session, where)
    augment = _augment(config, data)
    recipe = teacher_recipe(config, data, dataset)
    digest = fingerprint(recipe)
    store = TeacherStore(session.output_root)
    entry = teacher_entry(config, data, dataset, session.output_root)
    reporter = session.reporter
    if distributed.broadcast_from_main(entry.is_filled):
        store.tidy(entry)
        return _from_store(entry, config, data, dataset, session)

    def waiting() -> None:
        reporter.say(f"  another run is training {config.network.name}; waiting for it")

    with store.lock(entry, waiting):
        if distributed.broadcast_from_main(entry.is_filled):
            if world().is_main:
                entry.tidy()
            return _from_store(entry, config, data, dataset, session)
        started = time.monotonic()
        kept = {
            "recipe": recipe,
            "dataset": dataset_plain(data),
            "val_fraction": val_fraction,
            "pixel_type": dataset.pixel_type,
            **dataset.pixel_facts,
        }
        named = "teacher.schedule."
        training = Recipe(data, augment, config.schedule, config.seed, settings=named)
        _train(entry, config, training, digest, dataset, session, kept)
        seconds = time.monotonic() - started
    return _from_store(entry, config, data, dataset, session, seconds)


def teacher_recipe(config: TeacherConfig, data: DatasetConfig, dataset: Dataset) -> dict[str, Any]:
    """Everything that shapes a teacher's weights."""
    augment = _augment(config, data)
    return network_recipe(
        config.network, config.schedule, config.seed, augment, dataset, config.image_size
    )


def teacher_entry(
    config: TeacherConfig, data: DatasetConfig, dataset: Dataset, output_root: Path
) -> StoreEntry:
    """Where the teacher of a configuration is in the store, or will be."""
    digest = fingerprint(teacher_recipe(config, data, dataset))
    return TeacherStore(output_root).entry(data.name, config.network.name, digest)


def _augment(config: TeacherConfig, data: DatasetConfig) -> AugmentConfig:
    return config.augment if config.augment is not None else data.augment


def _train(
    entry: StoreEntry,
    config: TeacherConfig,
    recipe: Recipe,
    digest: str,
    dataset: Dataset,
    session: Session,
    kept: dict[str, Any],
) -> None:
    """Train into a store entry; the card is written last and makes it a teacher."""
    session.reporter.say(f"  training {config.network.name} into {entry.folder}")
    make_folder(entry.folder)
    remove_unfinished(entry.folder)
    size = config.image_size
    network = new_network(config.network, dataset, config.seed, "teacher", size)
    objective = Objective(CrossEntropy(config.schedule.label_smoothing), 1.0, {})
    card = make_card(config.network, network, dataset, {}, size)
    member = Member(network, config.network, card.normalisation, size)
    extractor, _ = tap_networks(objective, member, [], dataset, 1, config.seed)
    scheme = Supervised(extractor, objective, compiled=session.runtime.compile)
    checkpoints = entry.checkpoints
    trained = run_training(
        scheme,
        session,
        dataset,
        recipe,
        checkpoints,
        digest,
        lambda rows: write_metrics(entry.folder, rows),
    )
    figures = {
        **trained.test.facts(),
        "best_val": trained.best_val,
        "stopped_early": trained.stopped_early,
    }
    extra = {**kept, **figures, "seconds": trained.state.seconds}
    with distributed.main_first():
        entry.fill(network, replace(card, extra=extra))
    checkpoints.remove()


def _from_store(
    entry: StoreEntry,
    config: TeacherConfig,
    data: DatasetConfig,
    dataset: Dataset,
    session: Session,
    seconds: float | None = None,
) -> Teacher:
    network, card = entry.load()
    remedy = f"delete {entry.folder} to train it again"
    with refusing(f"The teacher {entry.weights}", network, "test", _sentence(remedy)):
        found = _measure(network, card, config, data, dataset, session)
    check_accuracy(found, card, entry.weights, config.teaching, session.reporter.warn, remedy)
    reused = seconds is None
    _say(
        session,
        config.network.name,
        found,
        "from the store" if reused else "trained",
        entry.weights,
    )
    return Teacher(
        freeze(network), config.network, card, entry.weights, reused, found, seconds or 0.0
    )


def _from_file(
    config: TeacherConfig, data: DatasetConfig, dataset: Dataset, session: Session, where: str
) -> Teacher:
    """A teacher from `teacher.checkpoint`, checked on images that are not test images first.

    A card that promises an accuracy on the very test images is held to that instead.
    """
    loaded = load_teacher(config, dataset, where)
    card, size = loaded.card, config.image_size
    promised = loaded.has_card and size is None and is_measured_on(card, data, dataset)
    name = f"The teacher {loaded.path}"
    remedy = f"Name other weights: {where}.checkpoint=..."
    if not promised:
        with refusing(name, loaded.network, "training or validation", remedy):
            check_loaded(loaded, config, data, dataset, session, where)
    with refusing(name, loaded.network, "test", remedy):
        found = _measure(loaded.network, card, config, data, dataset, session)
    if promised:
        warn, remedy = session.reporter.warn, "name another file"
        check_accuracy(found, card, loaded.path, config.teaching, warn, remedy)
    _say(session, card.name, found, "loaded", loaded.path)
    if not loaded.has_card and dataset.val is not None:
        session.reporter.say(
            "  note: published weights were usually trained on the images that are held out for "
            "validation here; only the test figures say how good they are"
        )
    return Teacher(freeze(loaded.network), loaded.config, card, loaded.path, True, found, 0.0)


def _measure(
    network: nn.Module,
    card: NetworkCard,
    config: TeacherConfig,
    data: DatasetConfig,
    dataset: Dataset,
    session: Session,
) -> Evaluation:
    """Its figures on the test split, in float32."""
    session.place(network)
    model = session.place(placed(network, card, dataset))
    batches = eval_loader(
        session, dataset.test, dataset.normalisation, data, config.schedule.eval_batch_size
    )
    return evaluate(model, batches, session.device, "fp32", dataset.test.groups)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _say(session: Session, name: str, found: Evaluation, how: str, path: Path) -> None:
    session.reporter.say(
        f"  {name} {how}: {format.percent(found.metrics.top1)} % on the test split, "
        f"measured now ({path})"
    )
