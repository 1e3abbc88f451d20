"""The learning rate at every optimiser step: a linear warm-up, then a registered schedule.

A schedule is a function `(progress, schedule) -> factor` of `schedule.lr`, a pure function of the
step, so that a training's rates are known before it starts and nothing about them is saved.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdrun.errors import ConfigError
from kdrun.ranges import LARGEST_NUMBER
from kdrun.recipes.registry import Registry

if TYPE_CHECKING:
    from kdrun.config.schema import ScheduleConfig


@dataclass(frozen=True)
class TrainingLength:
    """steps: optimiser steps in total. epochs: passes over the data; the last may be partial."""

    steps: int
    epochs: int
    steps_per_epoch: int


@dataclass(frozen=True)
class Progress:
    """Where a training stands after its warm-up.

    step: from 0, the warm-up included. share: of the steps after the warm-up, in [0, 1).
    epoch: passes over the data that are complete.
    """

    step: int
    share: float
    epoch: int


LrFunction = Callable[[Progress, "ScheduleConfig"], float]
LR_SCHEDULES: Registry[LrFunction] = Registry("curve")


def training_length(schedule: "ScheduleConfig", batches_per_epoch: int) -> TrainingLength:
    """The length a schedule asks for; `schedule.steps` replaces `schedule.epochs`.

    With `schedule.accumulate`, the last step of an epoch may have fewer batches.
    """
    steps_per_epoch = math.ceil(batches_per_epoch / schedule.accumulate)
    steps = schedule.steps if schedule.steps is not None else schedule.epochs * steps_per_epoch
    return TrainingLength(steps, math.ceil(steps / steps_per_epoch), steps_per_epoch)


def learning_rates(
    schedule: "ScheduleConfig", length: TrainingLength, settings: str = "schedule."
) -> list[float]:
    """The learning rate of every step. settings: prefix of the schedule's settings, for errors.

    Raises ConfigError for a warm-up longer than the training, and for rates without bound.
    """
    warmup = round(schedule.warmup_epochs * length.steps_per_epoch)
    if warmup >= length.steps:
        raise ConfigError(
            f"{settings}warmup_epochs={schedule.warmup_epochs:g} is {warmup} steps, but the "
            f"training has only {length.steps}: set a smaller number, such as 0."
        )
    rise = [schedule.lr * (step + 1) / (warmup + 1) for step in range(warmup)]
    rest = length.steps - warmup
    factor = LR_SCHEDULES[schedule.curve]
    try:
        rates = rise + [
            schedule.lr
            * factor(
                Progress(step, (step - warmup) / rest, step // length.steps_per_epoch), schedule
            )
            for step in range(warmup, length.steps)
        ]
    except OverflowError:
        rates = [math.inf]
    if not max(rates) <= LARGEST_NUMBER:  # NaN as well
        raise ConfigError(
            f"{settings}curve={schedule.curve} raises the learning rate beyond {LARGEST_NUMBER:g}: "
            "take a smaller lr, gamma or final_lr."
        )
    return rates


@LR_SCHEDULES.register("constant")
def constant(progress: Progress, schedule: "ScheduleConfig") -> float:
    """`lr` throughout."""
    return 1.0


@LR_SCHEDULES.register("step", reads=("milestones", "gamma"))
def step(progress: Progress, schedule: "ScheduleConfig") -> float:
    """Times `gamma` after each of the epochs `milestones`."""
    passed = sum(progress.epoch >= milestone for milestone in schedule.milestones)
    return schedule.gamma**passed


@LR_SCHEDULES.register("linear", reads=("final_lr",))
def linear(progress: Progress, schedule: "ScheduleConfig") -> float:
    """A straight line from 1 to `final_lr`."""
    return 1.0 + progress.share * (schedule.final_lr - 1.0)


@LR_SCHEDULES.register("cosine", reads=("final_lr",))
def cosine(progress: Progress, schedule: "ScheduleConfig") -> float:
    """Half a cosine from 1 to `final_lr` (Loshchilov and Hutter 2017, arXiv 1608.03983)."""
    return _half_cosine(progress.share, schedule.final_lr)


@LR_SCHEDULES.register("onecycle", reads=("final_lr",))
def onecycle(progress: Progress, schedule: "ScheduleConfig") -> float:
    """From 1/25 up to 1 in 30 % of the steps, then down to `final_lr`, both along half a cosine.

    Smith and Topin 2019, arXiv 1708.07120, with PyTorch's defaults.
    """
    rise = 0.3
    if progress.share < rise:
        return 1.0 - (1.0 - 1.0 / 25.0) * (1.0 + math.cos(math.pi * progress.share / rise)) / 2.0
    return _half_cosine((progress.share - rise) / (1.0 - rise), schedule.final_lr)


def _half_cosine(share: float, final: float) -> float:
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * share)) / 2.0
