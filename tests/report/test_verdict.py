"""The verdict against printed tables of Student's t (two-sided, 5 %) and its own definition."""

import math

import pytest

from kdrun.report.verdict import (
    DOES_NOT_HELP,
    HELPS,
    UNDECIDED,
    half_width,
    verdict_by_seed,
    verdict_of,
)

# n - 1 → t(0.975), as in the tables of textbooks.
T_TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 29: 2.045, 99: 1.984}


@pytest.mark.parametrize("freedom", T_TABLE)
def test_the_interval_uses_the_quantile_of_the_tables(freedom: int) -> None:
    n = freedom + 1
    assert half_width(math.sqrt(n), n) == pytest.approx(T_TABLE[freedom], abs=6e-4)


def test_an_interval_above_zero_helps() -> None:
    found = verdict_of([1.0, 1.2, 1.4])  # mean 1.2, sd 0.2
    assert found.outcome == HELPS
    assert found.low == pytest.approx(1.2 - 4.303 * 0.2 / math.sqrt(3), abs=1e-3)
    assert found.high == pytest.approx(1.2 + 4.303 * 0.2 / math.sqrt(3), abs=1e-3)
    assert found.seeds_needed is None
    assert found.text() == (
        "verdict: helps, gain +1.20 points (95 % interval +0.70 to +1.70, n=3 seeds)"
    )


def test_an_interval_below_zero_does_not_help() -> None:
    assert verdict_of([-1.0, -1.2, -1.4]).outcome == DOES_NOT_HELP


def test_an_interval_around_zero_is_undecided_and_says_how_many_seeds_it_takes() -> None:
    found = verdict_of([0.0, 1.0, 2.0])  # mean 1, sd 1: t(n - 1) < sqrt(n) from n = 7 on
    assert found.outcome == UNDECIDED
    assert found.seeds_needed == 7  # 2.571 > sqrt(6), 2.447 < sqrt(7)
    assert found.text().endswith("; roughly 7 seeds to decide")


def test_an_estimate_from_two_seeds_says_that_it_is_weak() -> None:
    verdict = verdict_of([0.0, 2.0])
    assert verdict.outcome == UNDECIDED
    expected = f"; roughly {verdict.seeds_needed} seeds to decide (n=2 is a weak basis"
    assert expected in verdict.text()
    assert "weak" not in verdict_of([0.0, 1.0, 2.0]).text()


def test_a_gain_that_vanishes_takes_more_seeds_than_anyone_runs() -> None:
    found = verdict_of([-1.0, 1.0, -0.99, 1.01])
    assert (found.outcome, found.seeds_needed) == (UNDECIDED, None)
    assert found.text().endswith("; likely more than 100 seeds to decide")


def test_one_seed_gets_no_verdict_and_none_no_text() -> None:
    assert verdict_of([3.0]).outcome is None
    assert verdict_of([3.0]).text() == "n=1: no verdict; repeat with -m seed=0,1,2"
    assert verdict_of([]).text() == ""


def test_equal_gains_of_one_test_image_are_no_proof() -> None:
    assert verdict_of([0.28, 0.28]).outcome == HELPS  # exact numbers, no rounding
    assert verdict_of([0.28, 0.28], image_points=0.28).outcome == UNDECIDED


def test_gains_below_one_test_image_do_not_help() -> None:
    assert verdict_of([0.0] * 4, image_points=0.25).outcome == DOES_NOT_HELP
    assert verdict_of([0.25] * 12, image_points=0.25).outcome == HELPS


def test_runs_of_one_seed_count_once() -> None:
    twice = verdict_by_seed([(0, 1.0), (0, 1.4), (1, 1.2)])
    assert (twice.n, twice.mean) == (2, pytest.approx(1.2))
    assert verdict_by_seed([(0, 1.0), (0, 1.4)]).outcome is None


def test_a_gain_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match="finite"):
        verdict_of([1.0, math.nan])
