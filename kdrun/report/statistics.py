"""Means over seeds and paired tests of differences."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kdrun.ui import format

T = TypeVar("T")
# No test with fewer pairs than this.
LEAST_PAIRS = 3
LEVEL = 0.05
TEST_NAME = "paired t-test over seeds, two-sided"


@dataclass(frozen=True)
class Mean:
    """Mean, sample standard deviation (n - 1; None with one value) and number of values."""

    mean: float
    sd: float | None
    n: int

    def text(self, show: Callable[[float], str] = format.percent) -> str:
        """`97.21 ± 0.31`; the mean alone where there is no spread."""
        spread = "" if self.sd is None else f" ± {show(self.sd).lstrip('+')}"
        return show(self.mean) + spread


def mean_of(values: Sequence[float | None]) -> Mean | None:
    """The mean of the values that are not None; None when all are."""
    found = [value for value in values if value is not None]
    if not found:
        return None
    n = len(found)
    mean = math.fsum(found) / n
    if n == 1:
        return Mean(mean, None, 1)
    return Mean(mean, math.sqrt(math.fsum((x - mean) ** 2 for x in found) / (n - 1)), n)


def paired_p(differences: Sequence[float]) -> float | None:
    """The p-value of a two-sided t-test that the mean of the differences is 0.

    None with fewer than three differences, or when all are equal.
    """
    found = mean_of(list(differences))
    if found is None or found.n < LEAST_PAIRS or not found.sd:
        return None
    if found.sd <= 1e-12 * abs(found.mean):  # equal but for rounding
        return None
    from scipy.special import stdtr  # scikit-learn brings scipy; scipy.stats is slow to import

    t = found.mean / (found.sd / math.sqrt(found.n))
    return float(2.0 * stdtr(found.n - 1, -abs(t)))


def significant(p_values: Mapping[T, float | None], level: float = LEVEL) -> set[T]:
    """The keys whose p-value is below `level` after Holm's correction for all tests.

    Holm 1979: the smallest p is compared with level / m, the next with level / (m - 1), and so on
    until one is larger.
    """
    tested = {key: p for key, p in p_values.items() if p is not None}
    held = set()
    for place, key in enumerate(sorted(tested, key=tested.__getitem__)):
        if tested[key] > level / (len(tested) - place):
            break
        held.add(key)
    return held
