"""What a teacher from a file expects and answers, where no card says it (`teacher.mean`, ...)."""

import os
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kdrun.errors import ConfigError

ORDERS = ("natural", "lexicographic")
CHANNELS = (1, 3)
Constants = float | tuple[float, ...]  # one number for all channels, or one per channel


@dataclass(frozen=True)
class TeacherInput:
    """The input and the outputs of a teacher's weights; None stands for "not given".

    mean, std: per channel, of pixels scaled to 0..1; one number holds for all channels.
    channels: 1 | 3, of the images it was trained on.
    classes: its output for each class of the data set, in that order: numbers (from 0) or names.
    class_order: the order of all its outputs: natural | lexicographic (of the data set's class
        names), or the names themselves.
    """

    mean: Constants | None = None
    std: Constants | None = None
    channels: int | None = None
    classes: tuple[str | int, ...] | None = None
    class_order: str | tuple[str, ...] | None = None

    def given(self) -> list[str]:
        """The names of the settings that are set."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def plain(self) -> dict[str, Any]:
        """The settings that are set, as `teacher_input` reads them."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value is not None
        }


AS_THE_DATA = TeacherInput()
INPUT_KEYS = tuple(field.name for field in fields(TeacherInput))


def teacher_input(node: dict[str, Any], where: str) -> TeacherInput:
    """The typed settings of one teacher; `where` is its name in errors.

    A `class_order` that is a file is read here, so that a run's configuration holds the names.
    Raises ConfigError for values of the wrong kind or range.
    """
    mean = _constants(node.get("mean"), f"{where}.mean")
    std = _constants(node.get("std"), f"{where}.std")
    if (mean is None) != (std is None):
        missing, there = ("std", "mean") if std is None else ("mean", "std")
        raise ConfigError(
            f"{where}.{there} is set without {where}.{missing}: give both, e.g. "
            f"'{where}.mean=[0.485,0.456,0.406]' '{where}.std=[0.229,0.224,0.225]'."
        )
    if std is not None and min(std if isinstance(std, tuple) else (std,)) <= 0:
        raise ConfigError(f"{where}.std={_shown(std)} must be above 0 in every channel.")
    if isinstance(mean, tuple) and isinstance(std, tuple) and len(mean) != len(std):
        raise ConfigError(
            f"{where}.mean has {len(mean)} values and {where}.std has {len(std)}: give one per "
            "channel to both."
        )
    return TeacherInput(
        mean,
        std,
        _channels(node.get("channels"), where),
        _classes(node.get("classes"), where),
        _class_order(node.get("class_order"), where),
    )


def _constants(value: Any, where: str) -> Constants | None:
    if value is None:
        return None
    values = value if isinstance(value, list | tuple) else [value]
    are_numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
    if not values or not are_numbers or not all(abs(x) < float("inf") for x in values):
        raise ConfigError(
            f"{where}={value} must be a number or one number per channel, e.g. "
            f"'{where}=[0.5,0.5,0.5]'."
        )
    numbers = tuple(float(x) for x in values)
    return numbers if isinstance(value, list | tuple) else numbers[0]


def _channels(value: Any, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or value not in CHANNELS:
        raise ConfigError(
            f"{where}.channels={value} must be 1 (grey) or 3 (colour), the images that the teacher "
            "was trained on. (An argument `channels` of your own network: set it in a function "
            "that makes the network.)"
        )
    return int(value)


def _classes(value: Any, where: str) -> tuple[str | int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ConfigError(
            f"{where}.classes={value} must be a list with one output (number or name) for each "
            f"class of the data set, e.g. '{where}.classes=[0,217,482]'."
        )
    chosen: list[str | int] = []
    for entry in value:
        if isinstance(entry, bool | float | dict | list) or entry is None:
            raise ConfigError(
                f"{where}.classes holds {entry!r}, which is neither the number nor the name of an "
                "output: quote names that look like something else."
            )
        chosen.append(entry)
    return tuple(chosen)


def _class_order(value: Any, where: str) -> str | tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple):
        names = tuple(str(name) for name in value)
    elif str(value) in ORDERS:
        return str(value)
    else:
        names = _names_in(str(value), where)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"{where}.class_order names {twice[0]!r} twice: name each output once.")
    if len(names) < 2:
        raise ConfigError(f"{where}.class_order needs the names of all outputs, at least two.")
    return names


def _names_in(text: str, where: str) -> tuple[str, ...]:
    """The names in a text file, one a line; running numbers before them are left out."""
    path = Path(os.path.expanduser(text))
    if not path.is_file():
        raise ConfigError(
            f"{where}.class_order={text} is neither natural nor lexicographic, nor a list of "
            "names, nor a text file with one name per line."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}.class_order: {path} cannot be read: {error}.") from None
    names = [line.strip() for line in lines if line.strip()]
    parts = [re.split(r"[\s,;:]+", name, maxsplit=1) for name in names]
    for first in (0, 1):
        running = [str(number) for number in range(first, first + len(names))]
        if [part[0] for part in parts] == running and all(len(part) == 2 for part in parts):
            return tuple(part[1] for part in parts)
    return tuple(names)


def _shown(value: Constants) -> str:
    if isinstance(value, tuple):
        return "[" + ",".join(f"{x:g}" for x in value) + "]"
    return f"{value:g}"
