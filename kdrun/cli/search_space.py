"""A search space as it is typed: lists, `interval(a,b)`, `range(a,b)`, `tag(log,...)`, `int(...)`.

This is Hydra's own grammar for sweeps, which its sweepers for optimisers read in the same way.
"""

from collections.abc import Sequence

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from kdrun.cli import grammar
from kdrun.cli.command_spec import CommandSpec, elements
from kdrun.errors import ConfigError
from kdrun.sweeps.study import Choice, Dimension, Interval

LOG = "log"


def dimension(spec: CommandSpec, override: Override) -> Dimension:
    """What one swept override lets a search choose from.

    Raises ConfigError for a range that is empty, or not positive where its logarithm is taken.
    """
    name, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        return _interval(name, low, high, LOG in value.tags, override)
    if isinstance(value, RangeSweep) and isinstance(value.start, int) and value.step == 1:
        assert value.stop is not None
        return _interval(name, value.start, int(value.stop) - 1, LOG in value.tags, override)
    choices = [word.partition("=")[2] for word in elements(spec, override)]
    return Choice(name, tuple(choices))


def parse(space: dict[str, str]) -> list[Override]:
    """The overrides of `search.space`: name → what is typed after `name=`."""
    words = [f"{name}={text}" for name, text in space.items()]
    found = grammar.parse(grammar.with_short_names(words, "search"))
    for override in found:
        if not override.is_sweep_override():
            raise ConfigError(
                f"search.space.{override.key_or_group} is a single value: give a list or a range, "
                "e.g. 'interval(1,20)' or '1,4,20'."
            )
    return found


def corners(dimensions: Sequence[Dimension]) -> list[list[str]]:
    """Words that together hold every choice and both ends of every range, for a check of each."""
    longest = max((len(one.ends()) for one in dimensions), default=0)
    return [
        [f"{one.name}={one.ends()[min(number, len(one.ends()) - 1)]}" for one in dimensions]
        for number in range(longest)
    ]


def _interval(
    name: str, low: float | int | None, high: float | int | None, log: bool, override: Override
) -> Interval:
    if low is None or high is None or not low < high:
        raise ConfigError(f"{override.input_line} is empty: give a smaller and a larger number.")
    if log and low <= 0:
        raise ConfigError(f"{override.input_line}: with log the range must lie above 0.")
    return Interval(name, low, high, log)
