"""Whether distillation helps: a verdict from gains that are paired by seed.

The rule, for the gains d_1 ... d_n (distilled minus baseline of one seed, test top-1, points):

- The 95 % interval of the mean gain is mean ± t(0.975, n - 1) · sd / sqrt(n): Student's t for
  paired differences. An accuracy is a whole number of images, so sd is at least one test image /
  sqrt(6), the rounding error of a difference: two equal gains are no proof.
- *helps*: the whole interval lies above 0.
- *does not help*: it ends at or below 0, or below the size of one test image.
- *undecided*: anything else. The smallest number of seeds whose interval would decide it, if mean
  and sd stayed as they are, is a rough estimate of how many it takes; n = 2 is a weak basis.
- One seed has no spread: no verdict.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kdrun.report.statistics import mean_of
from kdrun.ui import format

HELPS, DOES_NOT_HELP, UNDECIDED = "helps", "does not help", "undecided"
CONFIDENCE = 0.95
# An estimate above this says that the gain is too small to be worth deciding.
MANY_SEEDS = 100
# With this few gains the standard deviation, and with it the estimate, is itself unreliable.
FEW_SEEDS = 2


@dataclass(frozen=True)
class Verdict:
    """What n seeds say about the mean gain. low, high: its 95 % interval, points.

    outcome: HELPS, DOES_NOT_HELP, UNDECIDED, or None with fewer than two seeds.
    seeds_needed: estimated number of seeds that would decide it; None where it is decided, or
    where it would take more than MANY_SEEDS.
    """

    outcome: str | None
    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    seeds_needed: int | None = None

    def text(self) -> str:
        """One line for a screen or a page; empty without a gain."""
        if not self.n:
            return ""
        if self.outcome is None or self.low is None or self.high is None:
            return "n=1: no verdict; repeat with -m seed=0,1,2"
        interval = f"{format.points(self.low)} to {format.points(self.high)}"
        line = (
            f"verdict: {self.outcome}, gain {format.points(self.mean)} points "
            f"(95 % interval {interval}, n={self.n} seeds)"
        )
        if self.outcome == UNDECIDED:
            if self.seeds_needed is None:
                line += f"; likely more than {MANY_SEEDS} seeds to decide"
            else:
                line += f"; roughly {self.seeds_needed} seeds to decide"
            if self.n <= FEW_SEEDS:
                line += f" (n={self.n} is a weak basis for this estimate)"
        return line


def verdict_of(gains: Sequence[float], image_points: float = 0.0) -> Verdict:
    """The verdict on gains of different seeds, in points. image_points: one test image, in points.

    Raises ValueError for a gain that is not finite.
    """
    if not all(math.isfinite(gain) for gain in gains):
        raise ValueError("a gain is not finite")
    summary = mean_of(list(gains))
    if summary is None or summary.sd is None:
        return Verdict(None, len(gains), summary.mean if summary else 0.0)
    sd = max(summary.sd, image_points / math.sqrt(6))
    half = half_width(sd, summary.n)
    low, high = summary.mean - half, summary.mean + half
    if low > 0:
        outcome = HELPS
    elif high <= 0 or high < image_points:
        outcome = DOES_NOT_HELP
    else:
        outcome = UNDECIDED
    needed = None
    if outcome == UNDECIDED:
        needed = _seeds_needed(summary.mean, sd, summary.n, image_points)
    return Verdict(outcome, summary.n, summary.mean, low, high, needed)


def verdict_by_seed(
    gains: Iterable[tuple[int | None, float]], image_points: float = 0.0
) -> Verdict:
    """The verdict on (seed, gain) pairs.

    Runs that share a seed share a baseline, so they count once, with their mean gain.
    """
    by_seed: dict[int | None, list[float]] = {}
    for seed, gain in gains:
        by_seed.setdefault(seed, []).append(gain)
    means = [math.fsum(values) / len(values) for values in by_seed.values()]
    return verdict_of(means, image_points)


def half_width(sd: float, n: int) -> float:
    """Half the 95 % interval of a mean of n values with standard deviation sd."""
    from scipy.special import stdtrit  # scikit-learn brings scipy

    return float(stdtrit(n - 1, 0.5 + CONFIDENCE / 2)) * sd / math.sqrt(n)


def _seeds_needed(mean: float, sd: float, n: int, image_points: float) -> int | None:
    """The smallest number of seeds whose interval would decide, with the same mean and sd."""
    distance = max(abs(mean), image_points - mean)
    candidates = range(n + 1, MANY_SEEDS + 1)
    return next((m for m in candidates if half_width(sd, m) < distance), None)
