"""How long a training is, in optimiser steps, and the learning rate at each of them.

Everything is computed before training starts: the curve can be plotted, tested and resumed, and
nothing about it has to be saved.
"""

import math
from dataclasses import dataclass

from kdrun.config.schema import ScheduleConfig
from kdrun.errors import ConfigError


@dataclass(frozen=True)
class Length:
    """steps: optimiser steps in all. epochs: passes over the data, the last one maybe partial."""

    steps: int
    epochs: int
    steps_per_epoch: int


def training_length(schedule: ScheduleConfig, steps_per_epoch: int) -> Length:
    """The length a schedule asks for; `schedule.steps` replaces `schedule.epochs`."""
    steps = schedule.steps if schedule.steps is not None else schedule.epochs * steps_per_epoch
    return Length(steps, math.ceil(steps / steps_per_epoch), steps_per_epoch)


def learning_rates(schedule: ScheduleConfig, length: Length) -> list[float]:
    """The learning rate of every step.

    Raises ConfigError for a warm-up longer than the training.
    """
    warmup = round(schedule.warmup_epochs * length.steps_per_epoch)
    if warmup >= length.steps:
        raise ConfigError(
            f"schedule.warmup_epochs={schedule.warmup_epochs:g} is {warmup} steps, "
            f"but the training has only {length.steps}."
        )
    rise = [schedule.lr * (step + 1) / (warmup + 1) for step in range(warmup)]
    rest = length.steps - warmup
    if schedule.curve == "step":
        fall = _step(schedule, length, warmup)
    else:
        shape = {"constant": _constant, "linear": _linear, "cosine": _cosine, "onecycle": _onecycle}
        fall = [
            schedule.lr * shape[schedule.curve](k / rest, schedule.final_lr) for k in range(rest)
        ]
    return rise + fall


def _step(schedule: ScheduleConfig, length: Length, warmup: int) -> list[float]:
    rates = []
    for step in range(warmup, length.steps):
        finished_epochs = step // length.steps_per_epoch
        passed = sum(finished_epochs >= milestone for milestone in schedule.milestones)
        rates.append(schedule.lr * schedule.gamma**passed)
    return rates


def _constant(_share: float, _final: float) -> float:
    return 1.0


def _linear(share: float, final: float) -> float:
    return 1.0 + share * (final - 1.0)


def _cosine(share: float, final: float) -> float:
    return final + (1.0 - final) * (1.0 + math.cos(math.pi * share)) / 2.0


def _onecycle(share: float, final: float) -> float:
    """From lr/25 up to lr during three tenths, then down to `final`, both along half a cosine."""
    rise = 0.3
    if share < rise:
        return 1.0 - (1.0 - 1.0 / 25.0) * (1.0 + math.cos(math.pi * share / rise)) / 2.0
    return _cosine((share - rise) / (1.0 - rise), final)
