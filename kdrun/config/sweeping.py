"""The part of the typed configuration that says how many runs are made, and how."""

from dataclasses import dataclass, field
from typing import Annotated

from kdrun.ranges import Positive, Range, Seed

# Jobs of one sweep, trials of one search.
LARGEST_SWEEP = 10_000


@dataclass(frozen=True)
class SweepConfig:
    """How the jobs of a sweep are treated.

    fail_fast: start no other job after one has failed.
    job_minutes: end a job that takes longer, and go on with the others.
    """

    fail_fast: bool = False
    job_minutes: Positive | None = None


@dataclass(frozen=True)
class SearchConfig:
    """How `kdrun search` searches.

    trials: how many settings are tried. seed: of what is proposed.
    space: name → list or range, as it would be typed after `name=`.
    """

    trials: Annotated[int, Range(low=1, high=LARGEST_SWEEP)] = 20
    seed: Seed = 0
    space: dict[str, str] = field(default_factory=dict)
