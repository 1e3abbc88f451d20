"""What the jobs of a gang share while they train side by side: turns, batches, teachers' answers.

One job works at a time. Each is a greenlet, a function that can stand still in the middle of its
ordinary code while others go on, so it stands still in its loop while the others do the same step;
it hands its turn on when it asks for its next batch. The random state is each job's own: it is kept
when a turn is handed on and put back when the turn comes again.

All greenlets are of one thread. With a thread for each job every one would have its own helpers for
parallel loops, which go to sleep while others work; waking them made a small network's step half as
long again.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from kdrun.data.loaders import TrainLoader
from kdrun.errors import Interrupted
from kdrun.models.taps import Tapped
from kdrun.teachers.remembered import RememberedTeacher, follow
from kdrun.types import Batch, Outputs

T = TypeVar("T")
Position = tuple[int, int]  # (epoch, batch): the job that is furthest behind goes next
BEGINNING: Position = (-1, -1)


class Turns:
    """Whose turn it is. Jobs are numbered; `broken` makes every job stop at its next turn."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.waiting: dict[int, Position] = {}
        self.broken = False
        self._jobs: dict[int, greenlet] = {}
        self._chooser: greenlet | None = None

    def enter(self, job: int, work: Callable[[], object]) -> None:
        """A new job lines up; `work` begins when its turn comes."""
        self.waiting[job] = BEGINNING
        self._jobs[job] = greenlet(work)

    def run(self) -> None:
        """Give the jobs that have lined up their turns until all have ended.

        An exception of a job's work is raised here, after the others have been interrupted: each
        writes down that its run was stopped.
        """
        self._chooser = getcurrent()
        try:
            while self.waiting:
                job = self._next()
                self._jobs[job].switch()
                if self._jobs[job].dead:
                    del self.waiting[job]
        except BaseException:
            self._interrupt_all()
            raise

    def _interrupt_all(self) -> None:
        self.broken = True
        for job in self._jobs.values():
            if not job.dead:
                with suppress(BaseException):  # the first exception counts
                    job.throw(Interrupted("stopped with the others of its gang"))

    def hand_on(self, job: int, position: Position) -> None:
        """The job is about to do the step at `position`: those behind it go first."""
        self.waiting[job] = position
        if self._next() != job:
            assert self._chooser is not None
            kept = _random_state(self.device)
            self._chooser.switch()
            _set_random_state(kept, self.device)
        if self.broken:
            raise Interrupted("stopped with the others of its gang")

    def _next(self) -> int:
        return min(self.waiting, key=lambda job: (self.waiting[job], job))


class Shared:
    """What was made once for all jobs of a gang. Only the job whose turn it is touches it."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.made: dict[str, Any] = {}
        self.memories: dict[str, RememberedTeacher] = {}
        self.teachers: dict[str, Answers] = {}
        self.streams: dict[int, Stream] = {}

    def stream(self, loader: TrainLoader) -> "Stream":
        """The one stream of a loader's batches."""
        return self.streams.setdefault(id(loader), Stream(self, loader))


class SeatInGang:
    """One job's place."""

    def __init__(self, shared: Shared, job: int) -> None:
        self.shared = shared
        self.job = job

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What the first job that asked has made."""
        if key not in self.shared.made:
            self.shared.made[key] = make()
        found: T = self.shared.made[key]
        return found

    def loader(self, loader: TrainLoader) -> TrainLoader:
        """The loader, whose batches come when it is this job's turn."""
        return SharedLoader(loader, self)  # type: ignore[return-value]

    def teacher(self, teacher: nn.Module, tapped: Tapped, key: str) -> nn.Module:
        """A teacher that is asked once about the images that several jobs see.

        teacher: as this job would run it; tapped: the network in it with the job's taps.
        """
        shared = self.shared
        if isinstance(teacher, RememberedTeacher):
            key = f"remembered {key} {teacher.file.path} {teacher.sizes} {teacher.storable}"
            shared.memories.setdefault(key, teacher)
            return shared.teachers.setdefault(key, Answers(shared.memories[key]))
        if teacher is tapped:  # of one network, every job's taps are read in the same pass
            group = shared.teachers.setdefault(f"network {id(tapped.network)}", Answers(teacher))
            return group.member(tapped)
        places = (tapped.names, tapped.embedding, sorted(tapped.places))
        return shared.teachers.setdefault(f"{key} {places}", Answers(teacher))


class Answers(nn.Module):
    """A teacher's outputs for the last images, kept until it is asked about others."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher = teacher
        self.members: list[Tapped] = []
        self.images: Tensor | None = None
        self.outputs: list[Outputs] = []

    def member(self, tapped: Tapped) -> "Member":
        """One more job whose taps are read in the same pass."""
        self.members.append(tapped)
        self.images = None
        return Member(self, tapped)

    def forward(self, images: Tensor) -> Outputs:
        return self.answer(images, 0)

    def answer(self, images: Tensor, number: int) -> Outputs:
        """The outputs for member `number`; each gets containers of its own."""
        if self.images is not images:
            if self.members:
                first, *others = self.members
                self.outputs = first.beside(others, images)
            else:
                self.outputs = [self.teacher(images)]
            self.images = images
        found = self.outputs[number]
        return replace(found, features=dict(found.features))


class Member(nn.Module):
    """One job's view of a shared pass."""

    def __init__(self, answers: Answers, tapped: Tapped) -> None:
        super().__init__()
        self.answers = answers
        self.number = len(answers.members) - 1
        self.tapped = tapped

    def forward(self, images: Tensor) -> Outputs:
        return self.answers.answer(images, self.number)


class Stream:
    """A loader's batches for jobs that mostly ask for the same one, one after another.

    The last batch is kept, and no other: what teachers remember of a batch goes by the one in hand.
    """

    def __init__(self, shared: Shared, loader: TrainLoader) -> None:
        self.shared = shared
        self.loader = loader
        self.last: tuple[Position, Batch] | None = None
        self.running: tuple[int, Iterator[Batch]] | None = None

    def batch(self, epoch: int, number: int) -> Batch | None:
        """Batch `number` of `epoch`; None behind the last one."""
        if number >= self.loader.batches_per_epoch:
            return None
        position = (epoch, number)
        if self.last is not None and self.last[0] == position:
            return self.last[1]
        follows = self.last is not None and self.last[0] == (epoch, number - 1)
        if not follows or self.running is None:
            memories = list(self.shared.memories.values())
            batches = follow(self.loader, self.loader, memories)
            self.running = (epoch, batches.epoch(epoch, number))
        batch = next(self.running[1])
        self.last = (position, batch)
        return batch


class SharedLoader:
    """A TrainLoader whose `epoch` waits for the job's turn before each batch."""

    def __init__(self, loader: TrainLoader, seat: SeatInGang) -> None:
        self._loader = loader
        self._seat = seat

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `first_batch` on."""
        seat, number = self._seat, first_batch
        while True:
            seat.shared.turns.hand_on(seat.job, (epoch, number))
            batch = seat.shared.stream(self._loader).batch(epoch, number)
            if batch is None:
                return
            yield batch
            number += 1


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_random_state(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
