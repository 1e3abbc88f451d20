"""The learning-rate curves against their formulas."""

import math
from dataclasses import replace

import pytest

from kdrun.config.schema import ScheduleConfig
from kdrun.errors import ConfigError
from kdrun.recipes.lr_schedules import learning_rates, training_length

BASE = ScheduleConfig(epochs=10, lr=0.5, curve="constant")


def rates(steps_per_epoch: int = 4, **changes: object) -> list[float]:
    schedule = replace(BASE, **changes)
    return learning_rates(schedule, training_length(schedule, steps_per_epoch))


def test_length_in_epochs_and_in_steps() -> None:
    assert training_length(BASE, 7).steps == 70
    length = training_length(replace(BASE, steps=10), 4)
    assert (length.steps, length.epochs) == (10, 3)


def test_constant() -> None:
    assert rates() == [0.5] * 40


def test_step_multiplies_after_the_given_epochs() -> None:
    found = rates(steps_per_epoch=2, curve="step", milestones=[3, 5], gamma=0.1)
    assert found[:6] == [0.5] * 6  # epochs 1 to 3
    assert found[6:10] == pytest.approx([0.05] * 4)  # epochs 4 and 5
    assert found[10:] == pytest.approx([0.005] * 10)


def test_the_fields_recipe_matches_its_rule() -> None:
    """The rate falls once the epoch, counted from 1, exceeds 150, 180 and 210."""
    found = rates(steps_per_epoch=1, epochs=240, lr=0.05, curve="step", milestones=[150, 180, 210])
    for epoch in (1, 150, 151, 180, 181, 210, 211, 240):
        passed = sum(epoch > m for m in (150, 180, 210))
        assert found[epoch - 1] == pytest.approx(0.05 * 0.1**passed)


def test_cosine_ends_near_the_final_rate() -> None:
    found = rates(curve="cosine", final_lr=0.1)
    assert found[0] == 0.5
    assert found[20] == pytest.approx(0.5 * (0.1 + 0.9 * 0.5))
    assert found[-1] < 0.5 * 0.11


def test_linear() -> None:
    found = rates(curve="linear")
    assert found[10] == pytest.approx(0.5 * 0.75)
    assert found == sorted(found, reverse=True)


def test_onecycle_peaks_after_three_tenths() -> None:
    found = rates(steps_per_epoch=10, curve="onecycle")
    assert found[0] == pytest.approx(0.5 / 25)
    assert found.index(max(found)) == 30
    assert max(found) == pytest.approx(0.5)
    assert found[-1] < 0.01


def test_warmup_rises_linearly_to_the_curve() -> None:
    found = rates(curve="cosine", warmup_epochs=2)
    assert found[:9] == pytest.approx([0.5 * (k + 1) / 9 for k in range(9)])
    share = 1 / 32
    assert found[9] == pytest.approx(0.5 * (1 + math.cos(math.pi * share)) / 2)
    assert len(found) == 40


def test_warmup_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_epochs"):
        rates(steps=5, warmup_epochs=2)
