"""The variants of a benchmark: kdrun's loop, bare compute, and the usual loop.

`block()` of a variant does a fixed number of steps and returns the seconds per step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.config.schema import (
    DistillConfig,
    TeacherConfig,
    TeacherRuntimeConfig,
    named_teachers,
)
from kdrun.data.dataset import Dataset
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.distillation.build import build_scheme
from kdrun.distillation.new_teacher import teacher_network
from kdrun.distillation.session import Session, layout, train_loader
from kdrun.distillation.teacher import Teacher
from kdrun.distillation.train import RowWriter
from kdrun.engine.devices import autocast
from kdrun.engine.loop import Training
from kdrun.engine.measured_loop import MeasuredLoop, Repeated
from kdrun.engine.metrics import Evaluation, Metrics
from kdrun.engine.timing import PhaseClock
from kdrun.schemes.base import StudentScheme, freeze
from kdrun.seeds import derive
from kdrun.teachers.cached import cached_teachers
from kdrun.types import Batch, Outputs
from kdrun.ui.reporter import Reporter

# Variant → compile, the student's precision, how the teacher is run.
SWITCHES: dict[str, tuple[bool, str, dict[str, Any]]] = {
    "plain": (False, "fp32", {}),
    "folded": (False, "fp32", {"fold": True}),
    "compiled": (True, "fp32", {"fold": True}),
    "teacher_bf16": (False, "fp32", {"fold": True, "precision": "bf16", "compile": True}),
    "bf16": (True, "bf16", {"fold": True}),
    "remembered": (False, "fp32", {"cache": "logits"}),
    "remembered_bf16": (True, "bf16", {"fold": True, "cache": "logits"}),
}
DIFFERENT_BATCHES = 40  # enough that the images are not in the CPU's caches
CALIBRATION_PASSES = 4


@dataclass(frozen=True)
class Bench:
    """Shared by all variants of one benchmark. steps: per block."""

    dataset: Dataset
    session: Session
    steps: int


class Variant(Protocol):
    """A measured way to do training steps."""

    def block(self) -> float:
        """Do the steps of one block; returns seconds per step."""

    def close(self) -> None:
        """End what the variant has started, such as a loader's workers."""


class WatchedVariant(Variant, Protocol):
    """A variant that is also timed by phase."""

    def watched_block(self) -> float:
        """`block` with the clock of the phases running."""

    def phases(self) -> dict[str, float]:
        """Seconds of a step by phase, over all watched blocks."""


def variant_config(name: str, config: DistillConfig) -> DistillConfig:
    """The configuration of a named variant: the one that is measured with some switches set.

    `this` is the configuration as it is; all others start from no switch at all.
    """
    if name == "this":
        given = [teacher.runtime for teacher in config.teachers]
        runtimes = [
            one if one.cache in ("logits", "embedding") else replace(one, cache="off")
            for one in given
        ]
        return _with(config, config.runtime.compile, config.schedule.precision, runtimes)
    compiled, precision, changes = SWITCHES[name]
    plain = TeacherRuntimeConfig(cache="off")
    runtimes = [replace(plain, **changes) for _ in config.teachers]
    return _with(config, compiled, precision, runtimes)


def _with(
    config: DistillConfig, compiled: bool, precision: str, runtimes: list[TeacherRuntimeConfig]
) -> DistillConfig:
    teachers = tuple(
        replace(teacher, runtime=runtime)
        for teacher, runtime in zip(config.teachers, runtimes, strict=True)
    )
    return replace(
        config,
        teachers=teachers,
        schedule=replace(config.schedule, precision=precision),
        runtime=replace(config.runtime, compile=compiled),
    )


class LoopVariant:
    """The training loop with its loader, on untrained networks.

    It repeats a few batches, so that the teacher cache holds them.
    """

    def __init__(self, config: DistillConfig, bench: Bench) -> None:
        session = replace(bench.session, runtime=config.runtime)
        self.bench = bench
        self.config = config
        self.device = session.device
        self.scheme = untrained_scheme(config, bench.dataset, session)
        session.place(self.scheme)
        loader = train_loader(
            session,
            bench.dataset,
            config.dataset,
            config.augment,
            config.schedule.batch_size,
            config.seed,
            config.schedule.repeated_augmentation,
        )
        self.batches = Repeated(loader, DIFFERENT_BATCHES, bench.steps)
        training = Training(
            train=self.batches,
            val=None,
            schedule=config.schedule,
            seed=config.seed,
            device=session.device,
            checkpoints=None,
            checkpoint_seconds=float("inf"),
            observer=RowWriter(replace(session, reporter=Reporter("quiet")), lambda _: None, None),
            stop=session.stop,
            identity="benchmark",
        )
        self._fill_caches(loader)
        self.loop = MeasuredLoop(self.scheme, training)
        self.clock = PhaseClock(session.device)
        self.watched_steps = 0
        self._watch()

    def block(self) -> float:
        """The loop's steps as they are."""
        began = self.clock.now()
        self.loop.block()
        return (self.clock.now() - began) / self.bench.steps

    def close(self) -> None:
        """End the loader's workers."""
        self.batches.close()

    def watched_block(self) -> float:
        """The same with the phases' clock running."""
        data = self.loop.data_seconds
        self.clock.active = True
        seconds = self.block()
        self.clock.active = False
        spent = self.loop.data_seconds - data
        self.clock.seconds["data"] = self.clock.seconds.get("data", 0.0) + spent
        self.watched_steps += self.bench.steps
        return seconds

    def phases(self) -> dict[str, float]:
        """Seconds of a step by phase, over all watched blocks."""
        return {name: spent / self.watched_steps for name, spent in self.clock.seconds.items()}

    def _fill_caches(self, loader: TrainLoader) -> None:
        """Fill the teacher caches for these batches."""
        if cached_teachers(self.scheme.frozen_teachers):
            for batch in islice(loader.epoch(0), DIFFERENT_BATCHES):
                with autocast(self.device, self.config.schedule.precision):
                    self.scheme.teacher_outputs(batch)

    def _watch(self) -> None:
        scheme, clock = self.scheme, self.clock
        scheme.teacher_outputs = clock.timed("teacher forward", scheme.teacher_outputs)  # type: ignore[method-assign]
        run = clock.timed("student forward", scheme._run_student[0])
        scheme._run_student = (run,)
        clock.watch_module("terms", scheme.objective, then="backward")
        clock.watch_optimizer("optimiser", self.loop.optimizer, before="backward")


class BareVariant:
    """The networks, the objective and the optimiser of a loop, on one prefetched batch."""

    def __init__(self, loop: LoopVariant) -> None:
        self.loop = loop
        self.batch = _synthetic_batch(loop.config, loop.bench, loop.device)
        self.cached: Sequence[Outputs] | None = None
        if cached_teachers(loop.scheme.frozen_teachers):
            self.cached = loop.scheme.teacher_outputs(self.batch)

    def block(self) -> float:
        """Forward, objective, backward, update."""
        optimizer = self.loop.loop.optimizer
        began = self.loop.clock.now()
        for _ in range(self.loop.bench.steps):
            with autocast(self.loop.device, self.loop.config.schedule.precision):
                loss = self._loss()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return (self.loop.clock.now() - began) / self.loop.bench.steps

    def close(self) -> None:
        """Nothing to end."""

    def _loss(self) -> Tensor:
        scheme = self.loop.scheme
        if self.cached is not None:  # cached outputs need no forward pass
            student = scheme._run_student[0](self.batch.images)
            loss, _ = scheme.objective(student, self.cached, self.batch)
        else:
            loss, _ = scheme.objective(*scheme.forward_networks(self.batch), self.batch)
        return loss


def untrained_scheme(config: DistillConfig, dataset: Dataset, session: Session) -> StudentScheme:
    """The scheme with random weights; teachers have seen enough images to normalise them."""
    nothing = Evaluation(Metrics(0.0, 0.0, 0, 0.0, 0.0), torch.zeros(0, 1))
    teachers = []
    for where, teacher in named_teachers(config.teachers):
        network, card, _ = teacher_network(teacher, dataset, where)
        if teacher.checkpoint is None:
            _calibrate(network, teacher, _random_images(config, dataset))
        path = Path(f"{card.name} (untrained)")
        frozen = freeze(network)
        teachers.append(Teacher(frozen, card.network, card, path, False, nothing, 0.0))
    _, scheme = build_scheme(config, dataset, teachers, session)
    return scheme


@torch.no_grad()
def _calibrate(network: nn.Module, teacher: TeacherConfig, images: Tensor) -> None:
    """Give batch normalisation the statistics of some images."""
    if teacher.image_size is not None:
        images = F.interpolate(images, teacher.image_size)
    for _ in range(CALIBRATION_PASSES):
        network(images)


def _random_images(config: DistillConfig, dataset: Dataset) -> Tensor:
    stream = torch.Generator().manual_seed(derive(config.seed, "benchmark"))
    size = min(config.schedule.batch_size, len(dataset.train))
    return torch.randn(size, *dataset.train.shape, generator=stream)


def _synthetic_batch(config: DistillConfig, bench: Bench, device: torch.device) -> Batch:
    images = _random_images(config, bench.dataset)
    return Batch(
        images.to(device, memory_format=layout(bench.dataset.train)),
        (torch.arange(len(images)) % len(bench.dataset.classes)).to(device),
        torch.arange(len(images)).to(device),
    )
