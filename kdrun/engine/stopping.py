"""Early stopping: the end of a training whose validation figures no longer improve."""

from typing import Any

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.state import TrainState

# Which figure of an epoch's row each metric is, and the sign that makes larger better.
METRICS = {"accuracy": ("val/top1_percent", 1.0), "loss": ("val/loss", -1.0)}


def watch(state: TrainState, row: dict[str, Any], schedule: ScheduleConfig) -> None:
    """Note an epoch's validation figure in `state`; stop when patience has run out.

    Patience is counted in epochs since the best figure so far; an equal one does not count as
    better. Epochs without a measurement change nothing.
    """
    name, sign = METRICS[schedule.early_stopping_metric]
    if not schedule.early_stopping or name not in row:
        return
    if state.watched is None or sign * row[name] > sign * state.watched["value"]:
        state.watched = {"epoch": row["epoch"], "value": row[name]}
    state.stopped_early = row["epoch"] - state.watched["epoch"] >= schedule.early_stopping


def stopped_facts(
    state: TrainState, schedule: ScheduleConfig, epochs: int
) -> dict[str, Any] | None:
    """For JSON: after which epoch of `epochs` training was stopped, and why; None if it was not."""
    if not state.stopped_early or state.watched is None:
        return None
    return {
        "epoch": state.epoch,
        "epochs": epochs,
        "not_better_since": state.watched["epoch"],
        "metric": f"validation {schedule.early_stopping_metric}",
    }
