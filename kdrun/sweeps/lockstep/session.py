"""The session of one job in a lockstep group: what the group shares is made once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from kdrun.data.loaders.loaders import TrainLoader
from kdrun.distillation.session import Session
from kdrun.models.features.taps import FeatureExtractor
from kdrun.sweeps.lockstep.forward import SharedForward
from kdrun.sweeps.lockstep.scheduler import Position, Scheduler
from kdrun.teachers.cached import CachedTeacher
from kdrun.types import Batch

T = TypeVar("T")


class GroupState:
    """What the jobs of a group share. Only the running job accesses it."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.made: dict[str, Any] = {}
        self.teachers: dict[str, SharedForward] = {}
        self.streams: dict[int, BatchStream] = {}

    def stream(self, loader: TrainLoader) -> "BatchStream":
        """The one stream of a loader's batches."""
        return self.streams.setdefault(id(loader), BatchStream(loader))


@dataclass(frozen=True)
class JobSlot:
    """One job's place in its group."""

    group: GroupState
    job: int

    def yield_turn(self, position: Position) -> None:
        """Let the jobs that are behind `position` run first."""
        self.group.scheduler.yield_turn(self.job, position)


@dataclass(frozen=True)
class LockstepSession(Session):
    """A session whose data, loaders and teachers are shared with the other jobs of the group."""

    slot: JobSlot

    def unshared(self) -> Session:
        """The plain session, for work whose result is shared as a whole."""
        return Session(self.runtime, self.device, self.threads, self.reporter, self.stop)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """What `make` returned for the first job that asked with this key."""
        made = self.slot.group.made
        name = repr(key)
        if name not in made:
            made[name] = make()
        value: T = made[name]
        return value

    def train_batches(self, key: object, make: Callable[[], TrainLoader]) -> TrainLoader:
        """One loader for the group, whose batches arrive when it is this job's turn."""
        return SharedLoader(self.once(key, make), self.slot)  # type: ignore[return-value]

    def shared_teacher(
        self, teacher: nn.Module, extractor: FeatureExtractor, key: str
    ) -> nn.Module:
        """A teacher that runs once per batch for all jobs."""
        group = self.slot.group
        if isinstance(teacher, CachedTeacher):
            key = f"cached {key} {teacher.file.path} {teacher.sizes} {teacher.storable}"
            return group.teachers.setdefault(key, SharedForward(teacher))
        if teacher is extractor:  # one network: one pass serves the taps of every job
            name = f"network {id(extractor.network)}"
            return group.teachers.setdefault(name, SharedForward(teacher)).member(extractor)
        places = (extractor.names, extractor.embedding, sorted(extractor.places))
        return group.teachers.setdefault(f"{key} {places}", SharedForward(teacher))


class BatchStream:
    """A loader's batches for jobs that usually want the same one, one after another.

    Only the last batch is kept.
    """

    def __init__(self, loader: TrainLoader) -> None:
        self.loader = loader
        self.last: tuple[Position, Batch] | None = None
        self.running: tuple[int, Iterator[Batch]] | None = None

    def batch(self, epoch: int, number: int) -> Batch | None:
        """Batch `number` of `epoch`; None after the last one."""
        if number >= self.loader.batches_per_epoch:
            return None
        position = (epoch, number)
        if self.last is not None and self.last[0] == position:
            return self.last[1]
        follows = self.last is not None and self.last[0] == (epoch, number - 1)
        if not follows or self.running is None:
            self.running = (epoch, self.loader.epoch(epoch, number))
        batch = next(self.running[1])
        self.last = (position, batch)
        return batch


class SharedLoader:
    """A TrainLoader whose `epoch` waits for the job's turn before each batch."""

    def __init__(self, loader: TrainLoader, slot: JobSlot) -> None:
        self._loader = loader
        self._slot = slot

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first_batch` on."""
        number = first_batch
        while True:
            self._slot.yield_turn((epoch, number))
            batch = self._slot.group.stream(self._loader).batch(epoch, number)
            if batch is None:
                return
            yield batch
            number += 1
