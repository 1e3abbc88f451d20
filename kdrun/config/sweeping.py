"""The part of the typed configuration that says how many runs are made, and how."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SweepConfig:
    """How the jobs of a sweep are treated.

    fail_fast: start no other job after one has failed.
    job_minutes: end a job that takes longer, and go on with the others.
    """

    fail_fast: bool = False
    job_minutes: float | None = None


@dataclass(frozen=True)
class SearchConfig:
    """How `kdrun search` searches.

    trials: how many settings are tried. seed: of what is proposed.
    space: name → list or range, as it would be typed after `name=`.
    """

    trials: int = 20
    seed: int = 0
    space: dict[str, str] = field(default_factory=dict)
