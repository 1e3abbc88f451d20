"""Check networks and checkpoints before images are decoded, and schedules before training."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdrun.config.schema import (
    DistillConfig,
    ScheduleConfig,
    TeacherConfig,
    TrainTeacherConfig,
    named_teachers,
)
from kdrun.data.dataset import Dataset
from kdrun.data.decoding.image import Form
from kdrun.data.decoding.options import BeforeDecoding
from kdrun.data.images import LazyImages, Split
from kdrun.data.loaders.loaders import count_batches
from kdrun.distillation.networks import new_network
from kdrun.distillation.new_teacher import teacher_network
from kdrun.engine.freezing import require_thawing
from kdrun.recipes.lr_schedules import learning_rates, training_length
from kdrun.types import Normalisation


class _NotDecoded(LazyImages):
    """Placeholder images with a known shape."""

    def __init__(self, count: int, form: Form) -> None:
        self.shape = (count, form.channels, *form.size)
        self.dtype = torch.uint8

    def gather(self, index: Tensor) -> Tensor:
        """Return one all-zero image per index."""
        return torch.zeros(len(index), *self.shape[1:], dtype=self.dtype)


def network_checks(config: DistillConfig | TrainTeacherConfig) -> BeforeDecoding:
    """A function that builds the student and the teachers and loads the teachers' checkpoints.

    Called after reading the headers of an image folder. Raises the ConfigError or CheckpointError
    that would otherwise appear only after decoding all images.
    """

    def check(classes: tuple[str, ...], form: Form) -> None:
        dataset = outline(config.dataset.name, classes, form)
        for where, teacher in named_teachers(config.teachers):
            teacher_network(teacher, dataset, where)
        if isinstance(config, DistillConfig):
            new_network(config.student, dataset, config.seed, "student")

    return check


def check_student_length(schedule: ScheduleConfig, *splits: Split) -> None:
    """Raise ConfigError for a schedule that does not fit the training images in `splits`."""
    for split in splits:
        _check_length(schedule, split, "schedule.")


def check_teacher_lengths(teachers: Sequence[TeacherConfig], split: Split) -> None:
    """The same for the teachers that are trained, on the images in `split`."""
    for where, teacher in named_teachers(teachers):
        if teacher.checkpoint is None:
            _check_length(teacher.schedule, split, f"{where}.schedule.")


def _check_length(schedule: ScheduleConfig, split: Split, settings: str) -> None:
    length = training_length(schedule, count_batches(len(split), schedule.batch_size))
    require_thawing(schedule, length.epochs, settings)
    learning_rates(schedule, length, settings)


def outline(name: str, classes: tuple[str, ...], form: Form) -> Dataset:
    """A data set with one placeholder image per class."""
    targets = torch.arange(len(classes))
    split = Split(_NotDecoded(len(classes), form), targets)
    constants = Normalisation((0.5,) * form.channels, (0.5,) * form.channels)
    return Dataset(name, classes, split, None, split, constants, "", targets)
