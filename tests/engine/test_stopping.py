"""Early stopping: when it stops, what it remembers, and that it goes on where it was."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.test_loop import SCHEDULE, Plain, Watcher, run, same_weights, training, without_times

from kdrun.config.schema import ScheduleConfig
from kdrun.engine.loop import fit
from kdrun.engine.state import TrainState
from kdrun.engine.stopping import early_stop_dict, watch
from kdrun.errors import Interrupted


def stops_after(figures: list[float | None], name: str = "val/top1_percent", **set_: Any) -> int:
    """The epoch in which `watch` stops, fed with one figure per epoch; 0 for never."""
    state = TrainState()
    for epoch, value in enumerate(figures, 1):
        row = {"epoch": epoch} if value is None else {"epoch": epoch, name: value}
        watch(state, row, ScheduleConfig(**set_))
        if state.stopped_early:
            return epoch
    return 0


def test_it_stops_when_the_figure_has_not_improved_for_so_many_epochs() -> None:
    figures = [50.0, 60.0, 55.0, 60.0, 59.0, 70.0]
    assert stops_after(figures, early_stopping=1) == 3
    assert stops_after(figures, early_stopping=3) == 5  # an equal figure is no better
    assert stops_after(figures, early_stopping=4) == 0
    assert stops_after(figures, early_stopping=0) == 0


def test_a_falling_loss_is_an_improvement() -> None:
    settings = {"early_stopping": 2, "early_stopping_metric": "loss"}
    assert stops_after([3.0, 2.0, 2.5, 1.0, 1.0, 1.1], "val/loss", **settings) == 6


def test_epochs_without_a_measurement_only_pass() -> None:
    assert stops_after([50.0, None, 40.0, None, None], early_stopping=2) == 3
    assert stops_after([50.0, None, None, 60.0, None], early_stopping=2) == 0


PATIENT = replace(SCHEDULE, epochs=40, lr=1e-9, early_stopping=3)  # nothing is learnt


def test_training_ends_and_says_where(tmp_path: Path) -> None:
    _, state, watcher = run(tmp_path, schedule=PATIENT)
    best = state.watched and state.watched["epoch"]
    assert best
    assert state.stopped_early
    assert state.epoch == len(watcher.rows) == best + 3
    assert all(row["val/top1_percent"] <= watcher.rows[best - 1]["val/top1_percent"]
               for row in watcher.rows)  # fmt: skip
    facts = early_stop_dict(state, PATIENT, 40)
    assert facts == {
        "epoch": best + 3, "epochs": 40, "not_better_since": best, "metric": "validation accuracy",
    }  # fmt: skip
    assert early_stop_dict(TrainState(), PATIENT, 40) is None


@pytest.mark.parametrize("stop_at", [3, 7, 18])
def test_stopped_and_continued_it_ends_in_the_same_epoch(tmp_path: Path, stop_at: int) -> None:
    expected, whole, _ = run(tmp_path / "whole", schedule=PATIENT)
    watcher = Watcher(stop_at=stop_at)
    with pytest.raises(Interrupted):
        fit(Plain(), training(tmp_path / "part", watcher, schedule=PATIENT))
    torch.rand(5)
    found, state, _ = run(tmp_path / "part", schedule=PATIENT)
    assert same_weights(found, expected)
    assert without_times(state.history) == without_times(whole.history)
    assert state.watched == whole.watched
    again, finished, watcher = run(tmp_path / "part", schedule=PATIENT)
    assert same_weights(again, expected)
    assert finished.stopped_early
    assert watcher.rows == []  # nothing is left to do


def test_off_it_changes_nothing(tmp_path: Path) -> None:
    patient = replace(SCHEDULE, early_stopping=100)
    assert same_weights(run(tmp_path / "a")[0], run(tmp_path / "b", schedule=patient)[0])
