"""A teacher trained on labels: its fingerprint, its entry in the teacher store, its training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from kdrun.config.augment import from_crop_flip
from kdrun.config.dump import dataset_plain
from kdrun.config.schema import AugmentConfig, DatasetConfig, TeacherConfig
from kdrun.data.dataset import Dataset
from kdrun.distillation.averaged import save_averaged
from kdrun.distillation.connect import tap_networks
from kdrun.distillation.networks import Member
from kdrun.distillation.new_teacher import new_teacher, start_entry
from kdrun.distillation.session import Session
from kdrun.distillation.train import Recipe, run_training
from kdrun.engine import distributed
from kdrun.files import make_folder, remove_unfinished
from kdrun.losses.ce import label_loss
from kdrun.losses.objective import Objective
from kdrun.runs.metrics import write_metrics
from kdrun.schemes.supervised import Supervised
from kdrun.teachers.fingerprint import fingerprint, network_recipe
from kdrun.teachers.store import STEM, StoreEntry, TeacherStore


@dataclass(frozen=True)
class TeacherRecipe:
    """A `NetworkRecipe` whose network is kept in the teacher store.

    data, val_fraction: how `dataset` was opened.
    """

    config: TeacherConfig
    data: DatasetConfig
    val_fraction: float
    dataset: Dataset
    session: Session

    @cached_property
    def entry(self) -> StoreEntry:
        """Path of its store entry, which may not exist yet."""
        root = self.session.output_root
        return teacher_entry(self.config, self.data, self.dataset, root)

    @property
    def lock_file(self) -> Path:
        """See `NetworkRecipe`."""
        return TeacherStore(self.session.output_root).lock_file(self.entry)

    def find(self, warn: Callable[[str], None]) -> Path | None:
        """See `NetworkRecipe`. A damaged teacher is rejected when it is loaded."""
        filled = distributed.broadcast_from_main(self.entry.is_filled)
        return self.entry.folder if filled else None

    def train(self) -> Path:
        """See `NetworkRecipe`. The card is written last, which makes the entry a teacher."""
        entry, config = self.entry, self.config
        self.session.reporter.say(f"  training {config.network.name} into {entry.folder}")
        make_folder(entry.folder)
        remove_unfinished(entry.folder)
        _train(self)
        entry.checkpoints.remove()
        return entry.folder


def teacher_entry(
    config: TeacherConfig, data: DatasetConfig, dataset: Dataset, output_root: Path
) -> StoreEntry:
    """Path of a configured teacher's store entry, which may not exist yet."""
    digest = fingerprint(teacher_recipe(config, data, dataset))
    return TeacherStore(output_root).entry(data.name, config.network.name, digest)


def teacher_recipe(config: TeacherConfig, data: DatasetConfig, dataset: Dataset) -> dict[str, Any]:
    """Everything that determines a teacher's weights."""
    recipe = network_recipe(
        config.network,
        config.schedule,
        config.seed,
        _augment(config, data),
        dataset,
        config.image_size,
    )
    return {**recipe, **start_entry(config)}


def _augment(config: TeacherConfig, data: DatasetConfig) -> AugmentConfig:
    return from_crop_flip(data.augment) if config.augment is None else config.augment


def _train(recipe: TeacherRecipe) -> None:
    """Train on labels and put the network into the store."""
    config, dataset, session = recipe.config, recipe.dataset, recipe.session
    entry, size = recipe.entry, config.image_size
    network, card, _ = new_teacher(config, dataset)
    objective = Objective(label_loss(config.schedule), 1.0, {})
    member = Member(network, config.network, card.normalisation, size)
    extractor, _ = tap_networks(objective, member, [], dataset, 1, config.seed)
    settings = teacher_recipe(config, recipe.data, dataset)
    trained = run_training(
        Supervised(extractor, objective, compiled=session.runtime.compile),
        session,
        dataset,
        Recipe(
            recipe.data,
            _augment(config, recipe.data),
            config.schedule,
            config.seed,
            settings="teacher.schedule.",
        ),
        entry.checkpoints,
        fingerprint(settings),
        lambda rows: write_metrics(entry.folder, rows),
    )
    extra = {
        "recipe": settings,
        "dataset": dataset_plain(recipe.data),
        "val_fraction": recipe.val_fraction,
        "pixel_type": dataset.pixel_type,
        **dataset.pixel_metadata,
        **trained.test.to_dict(),
        "best_val": trained.best_val,
        "stopped_early": trained.stopped_early,
        **trained.ema_entry,
        "seconds": trained.state.seconds,
    }
    card = replace(card, extra=extra)
    with distributed.main_first():
        save_averaged(entry.folder, STEM, trained, card)
        entry.fill(network, card)
