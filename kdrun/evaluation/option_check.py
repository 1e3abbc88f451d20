"""`kdrun validate`: build one option and run one batch with the training code."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kdrun.config.schema import (
    DatasetConfig,
    DistillConfig,
    LoggerConfig,
    NetworkConfig,
    ScheduleConfig,
    TeacherConfig,
)
from kdrun.data.dataset import open_dataset
from kdrun.distillation.session import open_session, train_loader
from kdrun.errors import AbsentDataError
from kdrun.files import canonical_hash

SYNTHETIC = "kdrun.data.sources.synthetic"
BATCH_SIZE = 8
# (channels, side, classes) of the data sets that shipped experiments are about.
SHAPES = {
    "kdrun.data.idx.mnist": (1, 28, 10),
    "kdrun.data.idx.fashion_mnist": (1, 28, 10),
    "kdrun.data.sources.digits": (1, 8, 10),
    "kdrun.data.torchvision_sets.cifar10": (3, 32, 10),
    "kdrun.data.torchvision_sets.cifar100": (3, 32, 100),
    "kdrun.data.torchvision_sets.svhn": (3, 32, 10),
    "kdrun.data.torchvision_sets.stl10": (3, 96, 10),
}
DEFAULT_SHAPE = (3, 32, 10)


class Skipped(Exception):  # noqa: N818 - not an error: the option itself is fine
    """The option cannot be checked on this machine; the message says why."""


class Checker:
    """Checks options by training runs. output_root: has the decoded images of data sets.

    folder: for the runs. execute: trains one.
    A network that was fine as a student is not run again as a teacher.
    """

    def __init__(self, output_root: Path, folder: Path, execute: Callable[..., object]) -> None:
        self.output_root = output_root
        self.folder = folder
        self.execute = execute
        self.fine: set[str] = set()

    def check(self, group: str, config: DistillConfig) -> str:
        """Check the configuration with an option of `group`; returns a description of the check.

        Raises Skipped, or what the option's own code raises.
        """
        if group == "dataset":
            return self._data(config)
        if group == "logger":
            return "composed"
        key = _network_key(config.student)
        if group == "teacher" and config.teachers:
            key = _network_key(config.teachers[0].network)
            if key in self.fine:
                return "as the student of that name"
        shape = DEFAULT_SHAPE
        if group == "experiment":
            shape = SHAPES.get(config.dataset.target, DEFAULT_SHAPE)
        self.execute(tiny(config, shape, self.folder), ["validate"])
        if group == "student":
            self.fine.add(key)
        of = f" in the shape of {config.dataset.name}" if group == "experiment" else ""
        return f"one batch of made-up images{of}"

    def _data(self, config: DistillConfig) -> str:
        """Open a data set that is available locally, and read its first training batch."""
        data = config.dataset
        if "download" in data.kwargs:
            data = replace(data, kwargs={**data.kwargs, "download": False})
        try:
            dataset = open_dataset(data, config.val_fraction, self.output_root / "cache")
        except AbsentDataError:
            raise Skipped(f"not at hand below {data.kwargs.get('root')}") from None
        with open_session(replace(config.runtime, ui="quiet")) as session:
            loader = train_loader(session, dataset, data, config.augment, BATCH_SIZE, config.seed)
            images = next(iter(loader.epoch(0))).images
        assert bool(torch.isfinite(images).all()), "the first batch is not finite"
        shape = "×".join(str(size) for size in dataset.train.shape)
        return f"{len(dataset.train):,} training images, {shape}"


def _network_key(network: NetworkConfig) -> str:
    return canonical_hash([network.target, network.kwargs])


def tiny(config: DistillConfig, shape: tuple[int, int, int], root: Path) -> DistillConfig:
    """The same choices on one batch of random images, one step for every network."""
    channels, side, classes = shape
    kwargs: dict[str, Any] = {
        "num_classes": classes,
        "image_size": side,
        "channels": channels,
        "train_size": max(BATCH_SIZE, classes),
        "test_size": BATCH_SIZE,
    }
    data = DatasetConfig(
        "synthetic", SYNTHETIC, kwargs, augment=config.dataset.augment, resident="auto"
    )
    runtime = replace(config.runtime, output_root=str(root), ui="quiet", compile=False)
    return replace(
        config,
        dataset=data,
        teachers=tuple(_one_step_teacher(teacher) for teacher in config.teachers),
        schedule=_one_step(config.schedule),
        val_fraction=0.0,
        alone=False,
        runtime=runtime,
        logger=LoggerConfig("none"),
    )


def _one_step(schedule: ScheduleConfig) -> ScheduleConfig:
    precision = "fp32" if schedule.precision == "fp16" else schedule.precision
    return replace(schedule, steps=1, batch_size=BATCH_SIZE, warmup_epochs=0.0, precision=precision)


def _one_step_teacher(teacher: TeacherConfig) -> TeacherConfig:
    return replace(teacher, schedule=_one_step(teacher.schedule), checkpoint=None)
