"""Early stopping: end training when the validation metric no longer improves."""

from typing import Any

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.state import TrainState

# Setting → (column of an epoch's row, sign that makes larger better).
METRICS = {"accuracy": ("val/top1_percent", 1.0), "loss": ("val/loss", -1.0)}


def watch(state: TrainState, row: dict[str, Any], schedule: ScheduleConfig) -> None:
    """Update `state` with an epoch's validation metric; set `stopped_early` after the patience.

    The patience is counted in epochs since the best value; an equal value is not an improvement.
    Epochs without validation change nothing.
    """
    name, sign = METRICS[schedule.early_stopping_metric]
    if not schedule.early_stopping or name not in row:
        return
    if state.watched is None or sign * row[name] > sign * state.watched["value"]:
        state.watched = {"epoch": row["epoch"], "value": row[name]}
    state.stopped_early = row["epoch"] - state.watched["epoch"] >= schedule.early_stopping


def early_stop_dict(
    state: TrainState, schedule: ScheduleConfig, epochs: int
) -> dict[str, Any] | None:
    """For JSON: when and why training stopped early; None if it did not. epochs: as configured."""
    if not state.stopped_early or state.watched is None:
        return None
    return {
        "epoch": state.epoch,
        "epochs": epochs,
        "not_better_since": state.watched["epoch"],
        "metric": f"validation {schedule.early_stopping_metric}",
    }
