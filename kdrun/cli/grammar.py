"""Parse overrides, and explain those that Hydra's grammar rejects."""

import math
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.errors import HydraException

from kdrun.config.options import SHORT_NAMES, TRAINED_SCHEDULE
from kdrun.config.runtime import LIMITS
from kdrun.config.schema import LARGEST_SWEEP
from kdrun.errors import ConfigError

# Settings that decide which students of a sweep are trained.
BUDGET = tuple(f"sweep.{key}" for key in (*LIMITS, "latency"))
BRACKETS = {"[": "]", "(": ")", "{": "}"}


def parse(words: Sequence[str]) -> list[Override]:
    """The overrides in `words`. Raises ConfigError with the most likely fix."""
    parser = OverridesParser.create()
    found = []
    for position, word in enumerate(words):
        override = _try(parser, word)
        if override is None:
            raise ConfigError(_explain(parser, list(words), position))
        found.append(override)
    return found


def with_device(words: Sequence[str]) -> list[str]:
    """The words with `gpu=0`, `cuda=0`, `cuda:0` and `gpu` as the setting `device=...`."""
    bare = re.compile(r"(cuda|gpu)(:\d+)?$")
    return [
        f"device={word}" if bare.match(word) else re.sub(r"^(gpu|cuda)=", "device=", word)
        for word in words
    ]


def with_short_names(words: Sequence[str], config_name: str) -> list[str]:
    """`with_device`, and `ce.kind=bce` as `schedule.ce_kind=bce` where the verb trains."""
    schedule = TRAINED_SCHEDULE.get(config_name)
    expanded = with_device(words)
    if schedule is None:
        return expanded
    names = "|".join(re.escape(name) for name in SHORT_NAMES)
    short = re.compile(rf"(\+{{0,2}})({names})(?==)")
    return [
        short.sub(lambda match: f"{match[1]}{schedule}.{SHORT_NAMES[match[2]]}", word, count=1)
        if short.match(word)
        else word
        for word in expanded
    ]


def readable(word: str) -> bool:
    """Whether Hydra's grammar can read this override."""
    return _try(OverridesParser.create(), word) is not None


def shell_quoted(text: str) -> str:
    """Quote `text` for a shell."""
    if not any(character in text for character in " []{}()$*?<>|&;'\"\\`#~!"):
        return text
    return f"'{text}'" if "'" not in text else f'"{text}"'


def with_quoted_value(word: str) -> str:
    """The override with its value as one quoted text: `a=b,c` becomes `a='b,c'`."""
    key, _, value = word.partition("=")
    return f"{key}='{value}'" if "'" not in value else f'{key}="{value}"'


def _try(parser: OverridesParser, word: str) -> Override | None:
    try:
        override = parser.parse_override(word)
    except (HydraException, ValueError, RecursionError):  # also numbers and lists without end
        return None
    return override if override.key_or_group else None


def _explain(parser: OverridesParser, words: list[str], position: int) -> str:
    word = words[position]
    following = words[position + 1] if position + 1 < len(words) else ""
    if "=" not in word and not word.startswith("~"):
        return _no_value(words[position:])
    key, _, value = word.partition("=")
    if not key.strip("+~ "):
        before = words[position - 1] if position else "NAME"
        repaired = f"{before}={value or following or 'VALUE'}"
        return f"There must be no spaces around '=': type {shell_quoted(repaired)}."
    joined = _joined(parser, words, position)
    if joined is not None:
        return f"The shell cut '{word}' at a space: type it in quotes, {shell_quoted(joined)}."
    message = f"'{word}' cannot be read{_place(word)}."
    if _try(parser, word.rstrip(",")) is not None:
        return f"{message} Leave out the comma at its end: {shell_quoted(word.rstrip(','))}."
    for quote in "'", '"':
        if word.count(quote) % 2 and _try(parser, word + quote) is not None:
            return f"{message} The closing quote is missing: {shell_quoted(word + quote)}."
    if _open(word):
        repaired = word + "".join(reversed(_open(word)))
        if _try(parser, repaired) is not None:
            return f"{message} A closing bracket is missing: {shell_quoted(repaired)}."
    repaired = with_quoted_value(word)
    if _try(parser, repaired) is not None:
        return f"{message} If the value is meant as a text, quote it: {shell_quoted(repaired)}."
    return f"{message} An override is typed NAME=VALUE, a list as 'NAME=[A,B]'."


def _no_value(words: list[str]) -> str:
    """What to type for `student = x` and `student x`."""
    word, rest = words[0], " ".join(words[1:3])
    if rest.startswith("="):
        value = rest.removeprefix("=").split()[:1] or ["VALUE"]
        return f"There must be no spaces around '=': type {shell_quoted(f'{word}={value[0]}')}."
    value = words[1:2] if "=" not in "".join(words[1:2]) else []
    example = f"{word}={(value or ['VALUE'])[0]}"
    return f"'{word}' has no value: settings are typed NAME=VALUE, e.g. {shell_quoted(example)}."


def _joined(parser: OverridesParser, words: list[str], position: int) -> str | None:
    """The shortest run of words from `position` that is one override, if brackets were cut."""
    if not _open(words[position]):
        return None
    for end in range(position + 2, len(words) + 1):
        text = " ".join(words[position:end])
        if not _open(text) and _try(parser, text) is not None:
            return text
    return None


def _open(text: str) -> list[str]:
    """The closing brackets still missing at the end of `text`."""
    missing: list[str] = []
    for character in text:
        if character in BRACKETS:
            missing.append(BRACKETS[character])
        elif missing and character == missing[-1]:
            missing.pop()
    return missing


def _place(word: str) -> str:
    """Describe where parsing the value fails."""
    _, _, value = word.partition("=")
    if "=" in value:
        return f": there is a second '=' in its value, before '{value.partition('=')[2]}'"
    opened = _open(word)
    if opened:
        return f": a bracket is not closed after '{word}'"
    for closing in BRACKETS.values():
        if closing in value:
            return f": something is wrong around '{closing}'"
    return ""


SHOWN = 200  # characters of the command in a message


def refuse_budget(overrides: Iterable[Override], verb: str) -> None:
    """Raise ConfigError for a budget in a sweep that trains no students."""
    for override in overrides:
        if override.key_or_group in BUDGET and override.value() not in (None, False):
            raise ConfigError(
                f"{override.input_line} limits the students of kdrun distill and kdrun search, and "
                f"kdrun {verb} trains none: leave it out."
            )


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
