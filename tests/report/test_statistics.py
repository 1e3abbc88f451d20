"""Means and tests against scipy and against the definitions."""

import math

import pytest
from scipy import stats

from kdrun.report.statistics import mean_of, paired_p, significant


def test_the_mean_and_its_spread() -> None:
    found = mean_of([1.0, None, 2.0, 6.0])
    assert found is not None
    assert (found.mean, found.n) == (3.0, 3)
    assert found.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


def test_one_value_has_no_spread_and_none_no_mean() -> None:
    one = mean_of([5.0])
    assert one is not None
    assert one.sd is None
    assert mean_of([None]) is None


@pytest.mark.parametrize("n", [3, 5, 12])
def test_p_is_that_of_scipy(n: int) -> None:
    a = [90 + (7 * k % 5) * 0.31 for k in range(n)]
    b = [89.5 + (3 * k % 7) * 0.17 for k in range(n)]
    expected = stats.ttest_rel(a, b).pvalue
    found = paired_p([x - y for x, y in zip(a, b, strict=True)])
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("differences", [[], [1.0, 2.0], [0.5, 0.5, 0.5], [0.1 + 0.2, 0.3, 0.3]])
def test_no_p_where_there_is_nothing_to_judge_by(differences: list[float]) -> None:
    assert paired_p(differences) is None


def test_holm_compares_each_p_with_its_own_share() -> None:
    # 0.05/4 = 0.0125, 0.05/3 = 0.0167, 0.05/2 = 0.025: the third fails, and the fourth with it
    found = significant({"a": 0.01, "b": 0.016, "c": 0.03, "d": 0.04, "none": None})
    assert found == {"a", "b"}
    assert significant({"a": 0.04}) == {"a"}
    assert significant({}) == set()
