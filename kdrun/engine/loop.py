"""The training loop. It does not know about distillation: a scheme turns a batch into a loss.

for each epoch
    for each batch: forward, backward, accumulate metrics
        after every batch, or every few (`schedule.accumulate`): optimiser step
    validate, keep the best weights, write a row of metrics, save a checkpoint
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kdrun.config.schema import ScheduleConfig
from kdrun.engine import distributed
from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.engine.devices import autocast
from kdrun.engine.diagnostics import (
    frozen_objective,
    no_deterministic_kernel,
    not_finite,
    out_of_memory,
)
from kdrun.engine.finite import NonFiniteError, diverging
from kdrun.engine.freezing import Freezing, require_thawing
from kdrun.engine.interrupt import StopRequest
from kdrun.engine.max_norm import MaxNorm
from kdrun.engine.metrics import EpochSums, Metrics, evaluate
from kdrun.engine.optim import backward, build_optimizer, finish_gradients, set_learning_rate
from kdrun.engine.parameter_groups import split_groups
from kdrun.engine.random_state import random_state, set_random_state
from kdrun.engine.state import TrainState
from kdrun.engine.stopping import watch
from kdrun.engine.weight_average import WeightAverage, weights_swapped
from kdrun.errors import CheckpointError, ConfigError, is_out_of_memory
from kdrun.recipes.lr_schedules import TrainingLength, learning_rates, training_length
from kdrun.seeds import derive
from kdrun.types import Batch, StepOutput

# An epoch of a small data set can take 0.1 s; a checkpoint after each would dominate.
SAVE_AFTER_SECONDS = 2.0


class Scheme(Protocol):
    """A trainable module whose forward turns a batch into a loss."""

    def __call__(self, batch: Batch) -> StepOutput: ...
    def train(self, mode: bool = True) -> Any: ...
    def parameters(self) -> Iterable[nn.Parameter]: ...
    def modules(self) -> Iterable[nn.Module]: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> Any: ...
    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Called before epoch number `epoch` (from 0) of `epochs`."""

    def start_step(self, done: float) -> None:
        """Called before each batch. done: share of the training's steps, 0 <= done < 1."""

    def after_step(self) -> None:
        """Called after each batch, and after the optimiser step that it completes."""

    @property
    def network(self) -> nn.Module:
        """The plain network, whose weights are saved."""

    @property
    def measured(self) -> nn.Module:
        """The network to evaluate; it takes the loader's images."""


class TrainBatches(Protocol):
    """Training batches as a pure function of the epoch number."""

    batches_per_epoch: int

    def epoch(self, epoch: int, first_batch: int = 0) -> Iterator[Batch]: ...


class Observer(Protocol):
    """Receives progress events; `step_done` is called at every step and must be cheap."""

    def training_started(self, length: TrainingLength, state: TrainState) -> None: ...
    def step_done(self, batches: int, sums: EpochSums, images: int) -> None: ...
    def epoch_done(self, row: dict[str, Any], length: TrainingLength) -> None: ...
    def warn(self, text: str) -> None: ...


@dataclass(frozen=True)
class Training:
    """Data, schedule and environment of one training phase.

    identity: a checkpoint is resumed only if its identity is equal.
    checkpoints: where the training is saved; None: it never is.
    phase, phases: name of this phase, and of all phases in order; they share `checkpoints`.
    earlier: metrics rows of the previous phases; they are kept in the history.
    labelled: whether the training batches have labels; without them no training accuracy is logged.
    checkpoint_seconds, checkpoint_steps: maximum time and number of steps between checkpoints.
    on_start: called with the number of steps done, after resuming and before the next step.
    on_first_batch: called with the first batch of the training, before its step.
    settings: prefix of the schedule's settings on the command line.
    classifier: names of the parameters of the network's classifier, where the schedule treats it
        differently.
    """

    train: TrainBatches
    val: Iterable[Batch] | None
    schedule: ScheduleConfig
    seed: int
    device: torch.device
    checkpoints: CheckpointFolder | None
    checkpoint_seconds: float
    observer: Observer
    stop: StopRequest
    identity: str
    phase: str = "main"
    phases: tuple[str, ...] = ("main",)
    earlier: tuple[dict[str, Any], ...] = ()
    labelled: bool = True
    checkpoint_steps: int | None = None
    settings: str = "schedule."
    classifier: tuple[str, ...] = ()
    on_start: Callable[[int], None] | None = None
    on_first_batch: Callable[[Batch], None] | None = None


def fit(scheme: Scheme, training: Training) -> TrainState:
    """Train `scheme`, resuming from a checkpoint if there is one.

    Raises Interrupted or TimeLimitError after saving a checkpoint when a stop is requested, and
    TrainingError for a non-finite loss or when out of memory.
    """
    return _Fit(scheme, training).run()


class _Fit:
    """State of one call of `fit`: scheme, optimiser, gradient scaler and progress."""

    def __init__(self, scheme: Scheme, training: Training) -> None:
        self.scheme = scheme
        self.training = training
        self.schedule = training.schedule
        self.length = training_length(training.schedule, training.train.batches_per_epoch)
        require_thawing(training.schedule, self.length.epochs, training.settings)
        self.rates = learning_rates(training.schedule, self.length)
        self.optimizer = build_optimizer(scheme.parameters(), training.schedule)
        network, classifier = scheme.network, training.classifier
        split_groups(self.optimizer, network, training.schedule, classifier)
        self.freezing = Freezing(network, training.schedule, classifier)
        self.max_norm = MaxNorm(scheme.modules(), training.schedule.max_norm)
        self.average = WeightAverage(network, training.schedule.ema)
        self.scaler = torch.amp.GradScaler(
            training.device.type, enabled=training.schedule.precision == "fp16"
        )
        self.state = TrainState(phase=training.phase, history=list(training.earlier))
        self.state.averaged = self.average.tensors
        self.random_state: dict[str, Tensor] | None = None
        self.saved_at = -math.inf
        self.saved_step: int | None = None
        self.validating = False
        self.step_images = 0  # whose gradients the next optimiser step has so far

    def run(self) -> TrainState:
        self._resume()
        self.training.observer.training_started(self.length, self.state)
        settings = self.training.settings
        who = "the student" if settings == "schedule." else "the teacher in training"
        with self._explaining():
            if self.training.on_start is not None:
                self.training.on_start(self.state.step)
            while not self._done():
                with diverging(who, f"validation (epoch {self.state.epoch + 1})", settings):
                    self._epoch()
        self.freezing.finish()
        return self.state

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Raise errors of torch as errors that name a setting."""
        try:
            yield
        except ValueError as error:
            if "Expected more than 1 value per channel" in str(error):  # torch's batch norm
                raise self._batch_of_one() from None
            raise
        except (RuntimeError, MemoryError) as error:
            if "does not have a deterministic implementation" in str(error):
                raise no_deterministic_kernel(error, self.training.device) from None
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(
                self.state, self.schedule, self.training.device, self.training.settings,
                self.validating, self.saved_step,
            ) from error  # fmt: skip

    def _batch_of_one(self) -> ConfigError:
        size, settings = self.schedule.batch_size, self.training.settings
        name = "batch_size" if settings == "schedule." else f"{settings}batch_size"
        which = "Every batch" if size == 1 else "The last batch of an epoch"
        return ConfigError(
            f"{which} has a single image, too few for batch normalisation: set {name} so that "
            f"every batch has at least two, e.g. {name}={size + 1}."
        )

    def _epoch(self) -> None:
        state = self.state
        self.scheme.train()
        self.freezing.start_epoch(state.epoch)
        self.scheme.start_epoch(state.epoch, self.length.epochs)
        if state.batch == 0:
            self.random_state = None
            torch.manual_seed(derive(self.training.seed, "dropout", state.epoch))
        sums = EpochSums(self.training.device, state.sums)
        with self.training.stop.deferred:
            self._steps(sums)
            self._finish_epoch(sums)
            if time.monotonic() - self.saved_at > SAVE_AFTER_SECONDS or self._done():
                self._save(sums)
            self._stop_if_asked(sums)

    def _steps(self, sums: EpochSums) -> None:
        """Run the remaining steps of the current epoch."""
        state, training = self.state, self.training
        batches = training.train.epoch(state.epoch, state.batch)
        clock = time.perf_counter()
        for batch in batches:
            if self.random_state is not None:  # only now: the loader has drawn its random numbers
                set_random_state(self.random_state, training.device)
                self.random_state = None
            if state.step == state.batch == 0 and training.on_first_batch is not None:
                training.on_first_batch(batch)
            fetched = time.perf_counter()
            state.data_seconds += fetched - clock
            output = self._step(batch)
            state.batch += 1
            updates = self._step_is_complete()
            images = self.step_images
            if updates:
                self._update()
            self.scheme.after_step()
            sums.add(output, batch)
            state.images += len(batch)
            state.epoch_images += len(batch)
            if updates:
                training.observer.step_done(self._steps_in_epoch(), sums, images)
            now = time.perf_counter()
            state.seconds += now - clock
            state.epoch_seconds += now - clock
            clock = now
            if not updates:  # a step is saved as a whole
                continue
            if state.step == self.length.steps:
                break
            if state.batch < training.train.batches_per_epoch:
                self._stop_if_asked(sums)
            if self._save_is_due():
                self._save(sums)
                clock = time.perf_counter()  # not a part of the next batch's loading time

    def _step_is_complete(self) -> bool:
        """Whether the optimiser steps after the current batch."""
        batch, last = self.state.batch, self.training.train.batches_per_epoch
        return batch % self.schedule.accumulate == 0 or batch == last

    def _steps_in_epoch(self) -> int:
        return math.ceil(self.state.batch / self.schedule.accumulate)

    def _step(self, batch: Batch) -> StepOutput:
        """Add the gradients of one batch to those of the step."""
        if self.step_images == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self.step_images += len(batch)
        self.scheme.start_step(self.state.step / self.length.steps)
        with (
            autocast(self.training.device, self.schedule.precision),
            distributed.split_batch(batch),
        ):
            output = self.scheme(batch)
        if not output.loss.requires_grad:
            raise frozen_objective(self.training.settings)
        # a batch counts by its share of a full step's images; `_update` corrects a smaller step
        weight = 1.0 if self.schedule.accumulate == 1 else len(batch) / self._full_step_images
        backward(self.optimizer, output, self.scaler, weight)
        return output

    def _update(self) -> None:
        """One optimiser step with the gradients of its batches."""
        set_learning_rate(self.optimizer, self.rates[self.state.step])
        one_batch = self.schedule.accumulate == 1
        factor = 1.0 if one_batch else self._full_step_images / self.step_images
        finish_gradients(self.optimizer, factor)
        self.step_images = 0
        if self.schedule.grad_clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.scheme.parameters(), self.schedule.grad_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.max_norm.apply()
        self.state.step += 1
        self.average.update(self.state.step)

    @property
    def _full_step_images(self) -> int:
        return self.schedule.accumulate * self.schedule.batch_size

    def _finish_epoch(self, sums: EpochSums) -> None:
        """End the epoch: validate, keep the best weights, append the row of metrics."""
        state = self.state
        totals = self._finite_totals(sums)
        row = state.row(totals, self.rates[state.step - 1], self.training.labelled)
        if self._validation_is_due() and self.training.val is not None:
            try:
                self._validate(row)
            except NonFiniteError:
                self.training.observer.epoch_done(row, self.length)  # the history is kept
                raise
            watch(state, row, self.schedule)
        state.history.append(row)
        state.epoch += 1
        state.batch = 0
        state.epoch_seconds = 0.0
        state.epoch_images = 0
        state.sums = {}
        sums.sums.clear()
        self.training.observer.epoch_done(row, self.length)

    def _finite_totals(self, sums: EpochSums) -> dict[str, float]:
        """The sums as Python numbers; raises TrainingError if one is not finite."""
        began = time.perf_counter()
        totals = sums.totals()  # waits for the steps that a GPU still computes
        waited = time.perf_counter() - began
        self.state.seconds += waited
        self.state.epoch_seconds += waited
        if not all(math.isfinite(total) for total in totals.values()):
            tracker, accumulate = sums.tracker, self.schedule.accumulate
            raise not_finite(self.state, self.length, tracker, totals, self.saved_step, accumulate)
        sums.tracker.clear()
        return totals

    def _validation_is_due(self) -> bool:
        """After every `eval_every`-th epoch and after the last one."""
        return (self.state.epoch + 1) % self.schedule.eval_every == 0 or self._done()

    def _done(self) -> bool:
        return self.state.step >= self.length.steps or self.state.stopped_early

    def _validate(self, row: dict[str, Any]) -> None:
        assert self.training.val is not None
        self.validating = True
        metrics = self._evaluate(self.training.val)
        row["val/loss"] = metrics.loss
        row["val/top1_percent"] = metrics.top1
        if self.state.averaged is not None:
            with weights_swapped(self.scheme.network, self.state.averaged):
                averaged = self._evaluate(self.training.val)
            row["val/ema_loss"] = averaged.loss
            row["val/ema_top1_percent"] = averaged.top1
        self.validating = False
        best = self.state.best
        if best is None or metrics.top1 > best["val_top1"]:
            self.state.best = {"epoch": row["epoch"], "val_top1": metrics.top1}
            self.state.best_weights = {
                name: tensor.detach().cpu().clone()
                for name, tensor in self.scheme.network.state_dict().items()
            }

    def _evaluate(self, batches: Iterable[Batch]) -> Metrics:
        device, precision = self.training.device, self.schedule.precision
        return evaluate(self.scheme.measured, batches, device, precision).metrics

    def _stop_if_asked(self, sums: EpochSums) -> None:
        # reduced, so that all processes stop after the same step
        if distributed.all_reduce_max(self.training.stop.requested):
            self._save(sums)
            where = f"stopped after step {self.state.step} of {self.length.steps}"
            raise self.training.stop.error(where)

    def _save_is_due(self) -> bool:
        """Whether `checkpoint_steps` or `checkpoint_seconds` have passed since the last one."""
        steps = self.training.checkpoint_steps
        late = time.monotonic() - self.saved_at > self.training.checkpoint_seconds
        return late or (steps is not None and self.state.step % steps == 0)

    def _save(self, sums: EpochSums) -> None:
        if self.training.checkpoints is None:
            return
        self.state.sums = self._finite_totals(sums)
        self.training.checkpoints.save(
            {
                "schema": 1,
                "identity": self.training.identity,
                "state": self.state.as_dict(),
                "scheme": self.scheme.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": random_state(self.training.device),
            }
        )
        self.saved_at = time.monotonic()
        self.saved_step = self.state.step

    def _resume(self) -> None:
        """Load the checkpoint if it was written by this training, in this or a later phase."""
        training, checkpoints = self.training, self.training.checkpoints
        if checkpoints is None:
            return
        saved = distributed.broadcast_from_main(lambda: checkpoints.load(training.observer.warn))
        if saved is None:
            return
        if saved.get("identity") != self.training.identity:
            self.training.observer.warn(
                "The checkpoint was written with another configuration and is ignored."
            )
            return
        try:
            self._restore(saved)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"{checkpoints.last} is not a checkpoint of this training ({reason}): "
                f"delete {checkpoints.folder} to start over."
            ) from error

    def _restore(self, saved: dict[str, Any]) -> None:
        phases = self.training.phases
        ahead = phases.index(saved["state"]["phase"]) - phases.index(self.training.phase)
        if ahead < 0:  # written by an earlier phase, whose result is already in the scheme
            return
        self.scheme.load_state_dict(saved["scheme"])
        if ahead > 0:  # written by a later phase: this one is finished
            self.state.step = self.length.steps
            self.state.history = saved["state"]["history"]
            return
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.state = TrainState.from_dict(saved["state"])
        self.average.restore(self.state.averaged)
        self.state.averaged = self.average.tensors
        if self.state.batch:  # at the start of an epoch the generators are seeded instead
            self.random_state = saved["random"]
        self.saved_at = time.monotonic()
        self.saved_step = self.state.step
