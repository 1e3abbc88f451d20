"""How many jobs a command would have, counted before any list of values is built."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep

from kdrun.config.schema import LARGEST_SWEEP
from kdrun.errors import ConfigError

SHOWN = 200  # characters of the command in a message


def check_jobs(overrides: Iterable[Override]) -> None:
    """Raise ConfigError for a sweep of more than `LARGEST_SWEEP` jobs."""
    swept = [override for override in overrides if override.is_sweep_override()]
    words = " ".join(override.input_line or "" for override in swept)
    check_counts(words, [value_count(override) for override in swept])


def check_counts(words: str, counts: Sequence[int]) -> None:
    """The same of the numbers of values; words: what makes them, for the message."""
    jobs = math.prod(counts)
    if jobs > LARGEST_SWEEP:
        several = [f"{count:,}" for count in counts if count > 1]
        product = f" ({' x '.join(several)})" if len(several) > 1 else ""
        shown = words if len(words) <= SHOWN else f"{words[:SHOWN]}..."
        raise ConfigError(
            f"{shown} makes {jobs:,} jobs{product}, and a sweep has at most {LARGEST_SWEEP:,}: "
            "name fewer values."
        )


def value_count(override: Override) -> int:
    """The number of values of a swept override; a glob's are few, and counted as one."""
    value = override.value()
    if isinstance(value, RangeSweep):
        return _range_count(value, override.input_line or "")
    return len(value.list) if isinstance(value, ChoiceSweep) else 1


def _range_count(sweep: RangeSweep, line: str) -> int:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if start is None or stop is None:
        return 0
    if not all(math.isfinite(number) for number in (start, stop, step)) or step == 0:
        raise ConfigError(f"{line} has no end: give finite numbers and a step other than 0.")
    count = math.ceil((Fraction(stop) - Fraction(start)) / Fraction(step))
    if count < 1:
        raise ConfigError(
            f"{line} has no values: its end must lie above its start, or below for a negative step."
        )
    return count
