"""Resources shared by all stages of a command: device, screen, signals, output folder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from kdrun.config.schema import AugmentConfig, DatasetConfig, RuntimeConfig
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.decoding.options import BeforeDecoding
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import EvalLoader, TrainLoader
from kdrun.data.loaders.repeated import RepeatedLoader
from kdrun.engine import distributed
from kdrun.engine.allocator import keep_freed_memory
from kdrun.engine.devices import (
    describe_device,
    deterministic_kernels,
    pick_device,
    reset_process_state,
    set_threads,
)
from kdrun.engine.interrupt import StopRequest
from kdrun.files import require_root
from kdrun.models.features.taps import FeatureExtractor
from kdrun.types import Normalisation
from kdrun.ui.job_reporter import JobReporter
from kdrun.ui.reporter import Reporter
from kdrun.world import ALONE, world

T = TypeVar("T")


@dataclass(frozen=True)
class Session:
    """Device, threads, screen and signals of a command.

    Objects that jobs of a sweep can share are created through `once`, `train_batches` and
    `shared_teacher`. This class shares nothing; lockstep sweeps override these methods.
    """

    runtime: RuntimeConfig
    device: torch.device
    threads: int
    reporter: Reporter
    stop: StopRequest

    def unshared(self) -> "Session":
        """This session without sharing."""
        return self

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Call `make`; jobs that share the session call it once per `key` (by its repr)."""
        return make()

    def train_batches(self, key: object, make: Callable[[], TrainLoader]) -> TrainLoader:
        """The training batches; jobs that share use one loader per `key`."""
        return make()

    def shared_teacher(
        self, teacher: nn.Module, extractor: FeatureExtractor, key: str
    ) -> nn.Module:
        """The teacher; jobs that share run it once per batch.

        teacher: frozen, as this job runs it. extractor: the network in it, with this job's taps.
        key: equal for teachers whose outputs are equal.
        """
        return teacher

    @property
    def output_root(self) -> Path:
        """Where runs, teachers and decoded images are kept."""
        return Path(self.runtime.output_root)

    def place(self, network: nn.Module) -> nn.Module:
        """The network on the device, its convolutions in channels-last layout."""
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def device_line(self) -> str:
        """`cpu (AMD EPYC, threads: 2)`."""
        threads = f", threads: {self.threads}" if self.device.type == "cpu" else ""
        together = f", {world().size} processes" if world().size > 1 else ""
        return f"{self.device} ({describe_device(self.device)}{threads}){together}"


@contextmanager
def open_session(
    runtime: RuntimeConfig, limit_seconds: float | None = None, job: str | None = None
) -> Iterator[Session]:
    """Open a session and handle signals until the block ends, for at most `limit_seconds`.

    job: `job 3/4` of a sweep, whose output goes to its log.
    Raises ConfigError for an unavailable device and an unusable output root.
    """
    require_root(Path(runtime.output_root))
    reset_process_state()
    keep_freed_memory()
    distributed.init()
    device = pick_device(distributed.local_device(runtime.device))
    with deterministic_kernels(runtime.deterministic), StopRequest(limit_seconds) as stop:
        on_lost = stop.ask_all if world().size > 1 else stop.ask
        if job is None:
            reporter = Reporter(runtime.ui, on_lost)
        else:
            reporter = JobReporter(runtime.ui, job, on_lost)
        try:
            yield Session(runtime, device, set_threads(runtime.threads), reporter, stop)
        finally:
            reporter.close()


def open_data(
    session: Session,
    config: DatasetConfig,
    val_fraction: float,
    before_decoding: BeforeDecoding | None = None,
) -> Dataset:
    """Open the configured data set, with progress on the screen.

    before_decoding: called with the classes and the image format before images are decoded.
    """
    cache = session.output_root / "cache"

    def make() -> Dataset:
        with distributed.main_first():
            progress = session.reporter.progress
            return open_dataset(config, val_fraction, cache, progress, before_decoding)

    return session.once(("data", config, val_fraction), make)


def train_loader(
    session: Session,
    dataset: Dataset,
    config: DatasetConfig,
    augment: AugmentConfig,
    batch_size: int,
    seed: int,
    repeats: int = 1,
) -> TrainLoader:
    """Shuffled, augmented batches of the training split.

    repeats: `schedule.repeated_augmentation`.
    """

    def make() -> TrainLoader:
        loader = TrainLoader(
            dataset.train,
            dataset.normalisation,
            batch_size,
            augment,
            seed,
            session.device,
            resident=config.resident,
            workers=config.workers,
            memory_format=layout(dataset.train),
            world=world() if repeats == 1 else ALONE,
        )
        if repeats == 1:
            return loader
        return RepeatedLoader(loader, repeats, world())  # type: ignore[return-value]

    key = ("loader", dataset.fingerprint, config, augment, batch_size, seed, repeats)
    return session.train_batches(key, make)


def eval_loader(
    session: Session,
    split: Split,
    normalisation: Normalisation,
    config: DatasetConfig,
    batch_size: int,
) -> EvalLoader:
    """All images of a split, in order."""
    return EvalLoader(
        split,
        normalisation,
        batch_size,
        session.device,
        resident=config.resident,
        workers=config.workers,
        memory_format=layout(split),
        world=world(),
    )


def layout(split: Split) -> torch.memory_format:
    """Use channels last for colour images: convolutions run faster."""
    return torch.channels_last if split.shape[0] > 1 else torch.contiguous_format
