"""The training loop's own steps, run a block at a time so that they can be measured."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from kdrun.engine.loop import Scheme, TrainBatches, Training, _Fit
from kdrun.engine.metrics import EpochSums
from kdrun.types import Batch

ENOUGH_STEPS = 1_000_000


class Repeated:
    """The first batches of an epoch again and again, a block at a time.

    They are made anew each time (gathered, augmented, normalised), as in a training.
    count: different batches; block: batches of one call of `epoch`.
    """

    batches_per_epoch = ENOUGH_STEPS

    def __init__(self, source: TrainBatches, count: int, block: int) -> None:
        self.block = block
        self.batches = self._endless(source, min(count, source.batches_per_epoch))

    def _endless(self, source: TrainBatches, count: int) -> Iterator[Batch]:
        while True:
            yield from islice(source.epoch(0), count)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The next block, whatever the epoch is called."""
        return islice(self.batches, self.block)


class MeasuredLoop:
    """Blocks of the loop's steps: forward, backward, update and all it counts and reports.

    Without what an epoch's end does: validation, rows, checkpoints.
    """

    def __init__(self, scheme: Scheme, training: Training) -> None:
        schedule = replace(
            training.schedule, steps=ENOUGH_STEPS, curve="constant", warmup_epochs=0.0
        )
        self._fit = _Fit(scheme, replace(training, schedule=schedule))
        self._sums = EpochSums(training.device)
        self._run: Callable[[EpochSums], None] = self._fit._steps
        scheme.train()
        scheme.start_epoch(0, 1)
        training.observer.training_started(self._fit.length, self._fit.state)

    def block(self) -> None:
        """The steps of one block."""
        with self._fit.training.stop.deferred:
            self._run(self._sums)

    @property
    def optimizer(self) -> Any:
        """The optimiser in use."""
        return self._fit.optimizer

    @property
    def data_seconds(self) -> float:
        """Seconds waited for data since the beginning."""
        return self._fit.state.data_seconds

    def loss_sum(self) -> float:
        """The sum of the loss over all images so far; waits for the device."""
        return self._sums.totals().get("loss", 0.0)
