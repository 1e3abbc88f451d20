"""Run the training loop's steps in blocks, for benchmarks."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from kdrun.engine.loop import Scheme, TrainBatches, Training, _Fit
from kdrun.engine.metrics import EpochSums
from kdrun.types import Batch

ENOUGH_STEPS = 1_000_000


class Repeated:
    """Repeats the first batches of an epoch, a block at a time.

    Every repetition gathers, augments and normalises the images again, as in training.
    count: number of different batches. block: batches per call of `epoch`.
    """

    batches_per_epoch = ENOUGH_STEPS

    def __init__(self, source: TrainBatches, count: int, block: int) -> None:
        self.block = block
        self.batches = self._endless(source, min(count, source.batches_per_epoch))

    def _endless(self, source: TrainBatches, count: int) -> Generator[Batch, None, None]:
        while True:
            yield from islice(source.epoch(0), count)

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]:
        """The next block; the arguments are ignored."""
        return islice(self.batches, self.block)

    def close(self) -> None:
        """End the loader's workers, for which the exit of the process would wait in vain."""
        self.batches.close()


class MeasuredLoop:
    """Runs blocks of training steps, including metrics and progress events.

    Leaves out the end of an epoch: validation, rows and checkpoints. Nothing is saved, not even
    when a stop is requested.
    """

    def __init__(self, scheme: Scheme, training: Training) -> None:
        schedule = replace(
            training.schedule, steps=ENOUGH_STEPS, curve="constant", warmup_epochs=0.0
        )
        self._fit = _Fit(scheme, replace(training, schedule=schedule, checkpoints=None))
        self._sums = EpochSums(training.device)
        self._run: Callable[[EpochSums], None] = self._fit._steps
        scheme.train()
        scheme.start_epoch(0, 1)
        training.observer.training_started(self._fit.length, self._fit.state)

    def block(self) -> None:
        """Run one block."""
        with self._fit.training.stop.deferred:
            self._run(self._sums)

    @property
    def optimizer(self) -> Any:
        """The optimiser in use."""
        return self._fit.optimizer

    @property
    def data_seconds(self) -> float:
        """Seconds spent waiting for data so far."""
        return self._fit.state.data_seconds

    def loss_sum(self) -> float:
        """The sum of the loss over all images so far; synchronises the device."""
        return self._sums.totals().get("loss", 0.0)
