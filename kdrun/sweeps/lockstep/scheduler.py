"""Cooperative scheduling: the jobs of a lockstep group take turns, one training step at a time.

Each job is a greenlet: an ordinary function that can be suspended anywhere, here in its training
loop whenever it asks for its next batch. The random state belongs to the job: the scheduler saves
it on suspension and restores it on resumption.

All greenlets run in one thread. With one thread per job, each thread gets its own OpenMP workers,
which sleep while other jobs run; waking them made a small network's step 50 % slower.
"""

import time
from collections.abc import Callable
from contextlib import suppress

import torch
from greenlet import getcurrent, greenlet

from kdrun.engine.random_state import random_state, set_random_state
from kdrun.errors import Interrupted

Position = tuple[int, int]  # (epoch, batch): the job that is furthest behind runs next
BEGINNING: Position = (-1, -1)


class Scheduler:
    """Runs numbered jobs in turn, always the one furthest behind.

    stopped: set it to interrupt every job at its next turn.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.waiting: dict[int, Position] = {}
        self.stopped = False
        self._jobs: dict[int, greenlet] = {}
        self._main: greenlet | None = None
        self._seconds: dict[int, float] = {}
        self._since: float | None = None  # start of the current turn

    def add(self, job: int, work: Callable[[], object]) -> None:
        """Queue a job; `run` starts its `work`."""
        self.waiting[job] = BEGINNING
        self._jobs[job] = greenlet(work)

    def run(self) -> None:
        """Run all queued jobs to their end.

        An exception of one job is raised here after all others were interrupted, so that each
        records that its run was stopped.
        """
        self._main = getcurrent()
        try:
            while self.waiting:
                job = self._next()
                self._since = time.monotonic()
                self._jobs[job].switch()
                self._seconds[job] = self.seconds(job)
                self._since = None
                if self._jobs[job].dead:
                    del self.waiting[job]
        except BaseException:
            self._interrupt_all()
            raise

    def seconds(self, job: int) -> float:
        """How long a job has run: its own turns, the current one included."""
        turn = 0.0 if self._since is None else time.monotonic() - self._since
        return self._seconds.get(job, 0.0) + turn

    def _interrupt_all(self) -> None:
        self.stopped = True
        for job in self._jobs.values():
            if not job.dead:
                with suppress(BaseException):  # the first exception counts
                    job.throw(Interrupted("stopped with the other jobs of its lockstep group"))

    def yield_turn(self, job: int, position: Position) -> None:
        """Called by a job before its step at `position`: jobs further behind run first.

        Raises Interrupted when the group was stopped.
        """
        self.waiting[job] = position
        if self._next() != job:
            assert self._main is not None
            saved = random_state(self.device)
            self._main.switch()
            set_random_state(saved, self.device)
        if self.stopped:
            raise Interrupted("stopped with the other jobs of its lockstep group")

    def _next(self) -> int:
        return min(self.waiting, key=lambda job: (self.waiting[job], job))
