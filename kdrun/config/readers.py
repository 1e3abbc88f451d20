"""Values that may be typed in several forms, brought to the one form of the schema.

Each reader takes `(value, name)`, name: the setting in errors, and raises ConfigError.
"""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError, did_you_mean

ClassKey = int | str  # a class by number or name
Constants = float | tuple[float, ...]  # one number for all channels, or one per channel
AUTO_WEIGHT = "auto"  # the weight of a loss is measured before the first step
NATURAL, LEXICOGRAPHIC = "natural", "lexicographic"
CHANNELS = (1, 3)
BIASES = ("none", "match")
MOST_PIXELS = 100_000_000  # per image, as when reading files
# Endings that are no part of a data set's name.
CONTAINERS = re.compile(r"\.(parquet|tar|tar\.(gz|bz2|xz)|tgz|tbz2|txz)$", re.IGNORECASE)
# Lines of files of class names: `0 cat`, `0,cat`, `[0] cat`, and `cat 0`.
NUMBERED = re.compile(
    r"[\[(]?(?P<number>\d{1,9})[\])]?(?:\s*[,;:|=.)]\s*|\s+|(?<=[\])]))(?P<name>\S.*)"
)
NUMBERED_LAST = re.compile(r"(?P<name>.*\S)(?:\s*[,;:|=]\s*|\s+)(?P<number>\d{1,9})")
LARGEST_NAMES_FILE = 64 * 2**20  # bytes


def is_number(value: Any) -> bool:
    """Whether a value is a number; a bool is an int in Python, and none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def loss_weight(value: Any, name: str) -> float | str:
    """A number, or `auto`."""
    if value == AUTO_WEIGHT:
        return AUTO_WEIGHT
    if not is_number(value):
        text = "null" if value is None else value
        raise ConfigError(
            f"{name}={text} is not a number: type a number, or {name}={AUTO_WEIGHT} to have it "
            f"measured.{did_you_mean(str(value), [AUTO_WEIGHT])}"
        )
    return float(value)


def alpha(value: Any, name: str) -> float | None:
    """A number; `auto` is a setting of the loss."""
    if value is None:
        return None
    if value == AUTO_WEIGHT:
        raise ConfigError(
            f"{name}=auto: the weight of a single loss is measured, e.g. loss.kd.weight=auto, and "
            "CE keeps 1 - that weight."
        )
    if not is_number(value):
        raise ConfigError(f"{name}={value!r} is not a number.")
    return float(value)


def unchanged(value: Any, name: str) -> Any:
    """The value itself."""
    return value


def resident(value: Any, name: str) -> str:
    """`true` and `false` as the texts that stand beside `auto`."""
    return str(value).lower()


def ce_weight(value: Any, name: str) -> float | None:
    """A number; a kind or a group, which belongs to the recipe, is explained."""
    if value is None or is_number(value):
        return None if value is None else float(value)
    raise ConfigError(
        f"{name}={value!r} is not a number, the weight of CE: for a binary cross-entropy type "
        f"{name}.kind=bce, or in YAML 'schedule: {{ce_kind: bce}}'."
    )


def listed(value: Any, name: str) -> list[str]:
    """A single text as a list; null as an empty one."""
    values = value if isinstance(value, list | tuple) else [] if value is None else [value]
    return [str(entry) for entry in values]


def taps(value: Any, name: str) -> dict[str, str]:
    """Tap → module path; null: none."""
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{name}={value!r} is not a mapping: type '{name}={{stage1: layer1}}'.")
    return {str(tap): str(path) for tap, path in (value or {}).items()}


def rename(value: Any, name: str) -> dict[str, str | None]:
    """Module in the file → module in the network, or None to leave it out."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{name}={value!r} is not a mapping: type '{name}={{linear: fc}}', a module's name in "
            "the file and its name in the network."
        )
    for old, new in value.items():
        if not str(old) or not (new is None or isinstance(new, str | int)):
            raise ConfigError(
                f"{name}: {old}: {new!r} is not a pair of names; null leaves a module out."
            )
    return {str(old): None if new is None else str(new) for old, new in value.items()}


def device(value: Any, name: str) -> str:
    """`0`, `gpu` and `gpu:0` as `cuda:0`, `cuda` and `cuda:0`."""
    if value is None or isinstance(value, bool | list | dict):
        raise ConfigError(f"{name}={'null' if value is None else value} is not a device, e.g. cpu.")
    text = str(value).strip().lower()
    if text.isdecimal():
        return f"cuda:{int(text)}"
    return re.sub(r"^gpu(?=$|:)", "cuda", text)


def image_size(value: Any, name: str) -> tuple[int, int] | None:
    """(H, W) of a side, or of [height, width]."""
    if value is None:
        return None
    sides = value if isinstance(value, list | tuple) else [value, value]
    whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise ConfigError(f"{name}={value} must be a number of pixels, [height, width] or null.")
    check_pixels((sides[0], sides[1]), name)
    return sides[0], sides[1]


def check_pixels(size: tuple[int, int], name: str) -> None:
    """Raise ConfigError for images of more pixels than are read from any file."""
    if size[0] * size[1] > MOST_PIXELS:
        raise ConfigError(
            f"{name}={size[0]}×{size[1]} asks for images of {size[0] * size[1]:,} pixels; at "
            f"most {MOST_PIXELS:,} are allowed."
        )


def constants(value: Any, name: str) -> Constants | None:
    """A finite number, or one per channel."""
    if value is None:
        return None
    values = value if isinstance(value, list | tuple) else [value]
    are_numbers = all(is_number(x) and math.isfinite(x) for x in values)
    if not values or not are_numbers:
        raise ConfigError(
            f"{name}={value} must be a number or one number per channel, e.g. "
            f"'{name}=[0.5,0.5,0.5]'."
        )
    numbers = tuple(float(x) for x in values)
    return numbers if isinstance(value, list | tuple) else numbers[0]


def channels(value: Any, name: str) -> int | None:
    """1 or 3 input channels."""
    if value is None:
        return None
    if isinstance(value, bool) or value not in CHANNELS:
        raise ConfigError(
            f"{name}={value} must be 1 (grey) or 3 (colour), the images that the teacher was "
            "trained on. (If your own network has an argument `channels`, set it in a function "
            "that makes the network.)"
        )
    return int(value)


def output_classes(value: Any, name: str) -> tuple[ClassKey, ...] | None:
    """An output, by number or name, for each class of the data set."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ConfigError(
            f"{name}={value} must be a list with one output (number or name) for each class of "
            f"the data set, e.g. '{name}=[0,217,482]'."
        )
    for entry in value:
        if isinstance(entry, bool | float | dict | list) or entry is None:
            raise ConfigError(
                f"{name} holds {entry!r}, which is neither the number nor the name of an output: "
                "quote names that look like something else."
            )
    return tuple(value)


def class_keys(value: Any, name: str) -> tuple[ClassKey, ...]:
    """Classes by number or name; a single one needs no brackets."""
    values = value if isinstance(value, list | tuple) else [] if value is None else [value]
    for entry in values:
        if isinstance(entry, bool) or not isinstance(entry, int | str):
            raise ConfigError(
                f"{name}: {entry!r} is neither a class number nor a name, e.g. [3]; quote names "
                'that look like something else: \'["true","1.10"]\'.'
            )
    return tuple(values)


def bias(value: Any, name: str) -> str | float:
    """none | match | a number."""
    if is_number(value):
        return float(value)
    if value is None:
        return "none"
    if value not in BIASES:
        hint = did_you_mean(str(value), BIASES)
        raise ConfigError(f"{name}={value} is not none, match or a number.{hint}")
    return str(value)


def class_order(value: Any, name: str) -> str | tuple[str, ...] | None:
    """natural | lexicographic | the names of all outputs, listed or in a text file."""
    if value is None:
        return None
    if isinstance(value, list | tuple):
        names = tuple(str(entry) for entry in value)
    elif str(value) in (NATURAL, LEXICOGRAPHIC):
        return str(value)
    else:
        names = without_numbers(read_names(str(value), name))
    twice = sorted({entry for entry in names if names.count(entry) > 1})
    if twice:
        raise ConfigError(f"{name} names {twice[0]!r} twice: name each output once.")
    if len(names) < 2:
        raise ConfigError(f"{name} needs the names of all outputs, at least two.")
    return names


def dataset_class_order(value: Any, name: str) -> Any:
    """The value, a file replaced by its lines, so that a run's configuration holds the names."""
    if not isinstance(value, str) or value in (NATURAL, LEXICOGRAPHIC):
        return value
    return read_names(value, name)


def read_names(value: str, name: str) -> list[str]:
    """The lines of a text file with one name per line, without blank ones."""
    try:
        path = Path(value).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"{name}={value} is neither {NATURAL} nor {LEXICOGRAPHIC}, nor a list of names, "
                f"nor a text file with one name per line."
                f"{did_you_mean(value, (NATURAL, LEXICOGRAPHIC))}"
            )
        if path.stat().st_size > LARGEST_NAMES_FILE:
            raise ConfigError(f"{name}={value} is too large for a list of class names.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError, RuntimeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeError) else str(error)
        raise ConfigError(f"{name}={value} cannot be read: {reason}.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def without_numbers(lines: Sequence[str]) -> tuple[str, ...]:
    """The names in lines `0 cat` or `cat 0`, in the order of their numbers, or else the lines.

    The numbers run from 0 or from 1, and the names differ. Between number and name are spaces or a
    usual mark (`0,cat`, `0: cat`, `[0] cat`).
    """
    for pattern in (NUMBERED, NUMBERED_LAST):
        matches = [match for line in lines if (match := pattern.fullmatch(line)) is not None]
        names = {int(match["number"]): match["name"] for match in matches}
        if len(matches) < len(lines) or len(set(names.values())) < len(lines):
            continue
        if sorted(names) in ([*range(len(lines))], [*range(1, len(lines) + 1)]):
            return tuple(names[number] for number in sorted(names))
    return tuple(lines)


def place_name(kwargs: dict[str, Any]) -> str:
    """A name for a data set: its table, its folder, or what its shards have in common."""
    if isinstance(table := kwargs.get("file"), str):
        return Path(table).stem
    place = kwargs.get("root") or kwargs.get("train")
    place = str(place[0] if isinstance(place, list) and place else place or "")
    if not place:
        return "dataset"
    pattern = re.search(r"[*?\[{]", place)
    if pattern is None:
        return CONTAINERS.sub("", _real(place).name)
    folder, _, start = place[: pattern.start()].rpartition("/")
    return start.rstrip("-_. ") or _real(folder or ".").name or "dataset"


def _real(place: str) -> Path:
    """The path without links; of one that leads to itself, as far as it goes."""
    try:
        return Path(os.path.realpath(place))
    except (OSError, ValueError) as error:
        raise ConfigError(f"dataset.root={place!r:.200} is no path: {error}.") from None


def require_text(values: dict[str, Any]) -> None:
    """Raise ConfigError for a text that cannot be written into a run's files."""
    for key, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and any("\ud800" <= char <= "\udfff" for char in one):
                shown = str(value).encode("utf-8", "backslashreplace").decode()
                raise ConfigError(
                    f"dataset.{key}={shown} is not UTF-8: rename the file or folder, or give it a "
                    "link with another name."
                )
