"""Translate overrides for several teachers into Hydra's form and back.

Hydra would merge a list of options into one node, but each teacher needs its own. So
`teacher=[a,b]` becomes `teacher=a +teacher@teacher2=b`, and settings of a single teacher
(`teacher2.seed=3`) are force-added. `kdrun.config.teachers` collects the nodes.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.types import Glob, Override

from kdrun.cli import config_groups, grammar
from kdrun.config.teachers import NUMBERED
from kdrun.errors import ConfigError

GROUP = "teacher"
REMOVAL = re.compile(rf"~{GROUP}[0-9]+(=|$)")


def expand_teachers(words: Sequence[str], config_dir: Path | None = None) -> list[str]:
    """Convert typed overrides to Hydra's form.

    Raises ConfigError for lists that are empty or swept.
    """
    overrides = grammar.parse(words)
    placed = _placed_by_experiments(overrides, config_dir)
    kept = {_place(override) for override in overrides if _chooses(override)}
    kept |= {_owner(override) for override in overrides}
    expanded: list[str] = []
    for word, override in zip(words, overrides, strict=True):
        key = override.key_or_group
        if key == GROUP and override.package is None and _chooses(override):
            expanded += _choices(override, word, placed, placed - kept)
        elif _place(override) and _chooses(override):
            expanded.append(_placing(_place(override), word.partition("=")[2], placed))
        elif _is_bare(override) and _owner(override):
            _check_schedule(override, word)
            expanded.append(f"+{word}" if override.package else f"++{word}")
        else:
            expanded.append(word)
    return expanded


def merge_teachers(words: Iterable[str]) -> list[str]:
    """The inverse of `expand_teachers`: Hydra's overrides in typed form."""
    words = list(words)
    if any(word.startswith(f"{GROUP}=") for word in words):  # it already removes the others
        words = [word for word in words if not REMOVAL.match(word)]
    merged: list[str] = []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        package = key.removeprefix(f"{GROUP}@")
        if package != key and NUMBERED.match(package):
            _add(merged, package, value)
        elif _root(key):
            merged.append(f"{key}={value}")
        else:
            merged.append(word)
    return merged


def single_teacher(override: Override) -> str | None:
    """`teacher2` for a setting of that teacher only, else None."""
    root = override.key_or_group.partition(".")[0]
    within = "." in override.key_or_group and override.package is None
    return root if within and NUMBERED.match(root) and override.is_force_add() else None


def _place(override: Override) -> str:
    """`teacher2` for `teacher2=a` and `teacher@teacher2=a`, else empty."""
    if override.key_or_group == GROUP:
        place = override.package or ""
    else:
        place = override.key_or_group if override.package is None else ""
    return place if NUMBERED.match(place) else ""


def _chooses(override: Override) -> bool:
    """Whether the override chooses options, rather than setting or deleting values."""
    return _is_bare(override) and not isinstance(override.value(), dict)


def _is_bare(override: Override) -> bool:
    return not (override.is_delete() or override.is_add() or override.is_force_add())


def _owner(override: Override) -> str:
    """`teacher2` for `teacher2.seed=1` and `schedule@teacher2.schedule=adam`, else empty."""
    return _root(override.package or override.key_or_group)


def _check_schedule(override: Override, word: str) -> None:
    key, _, value = word.partition("=")
    if key.endswith(".schedule") and override.package is None and _chooses(override):
        raise ConfigError(
            f"{key} is a group of settings: to choose one, type schedule@{key}={value}."
        )


def _root(key: str) -> str:
    place = key.partition("@")[2] if "@" in key else key
    root, dot, _ = place.partition(".")
    return root if dot and NUMBERED.match(root) else ""


def _choices(
    override: Override, word: str, placed: frozenset[str], unwanted: frozenset[str]
) -> list[str]:
    """`teacher=a` or `teacher=[a,b]`, plus removals of an experiment's further teachers.

    placed: by experiments. unwanted: those without words of their own (`teacher2=b`).
    """
    value = override.value()
    if override.is_sweep_override():
        if any(isinstance(names, list) for names in _swept(override)):
            raise ConfigError(
                f"'{word}' would sweep over lists of teachers: sweep over single ones "
                "(teacher=A,B) or teacher.count=1,3, or run one command for each list."
            )
        return [word, *_removals(unwanted, 1)]
    names = value if isinstance(value, list) else [value]
    if not names:
        raise ConfigError("The list of teachers is empty: name one, teacher=A, or 'teacher=[A,B]'.")
    if any(isinstance(name, list | dict) or name is None for name in names):
        raise ConfigError(f"'{word}' is not a list of names: type 'teacher=[A,B]'.")
    first = word if not isinstance(value, list) else f"{GROUP}={names[0]}"
    more = [_placing(f"{GROUP}{n}", str(name), placed) for n, name in enumerate(names[1:], 2)]
    return [first, *more, *_removals(unwanted, len(names))]


def _swept(override: Override) -> list[Any]:
    if not override.is_choice_sweep() or isinstance(override.value(), Glob):
        return []  # a glob matches names
    texts = override.sweep_string_iterator()
    return [option.value() for option in grammar.parse([f"{GROUP}={text}" for text in texts])]


def _placing(place: str, value: str, placed: frozenset[str]) -> str:
    sign = "" if place in placed else "+"
    return f"{sign}{GROUP}@{place}={value}"


def _removals(placed: frozenset[str], count: int) -> list[str]:
    """Overrides that remove an experiment's further teachers: `teacher=` lists all of them.

    They remove the node, so that the experiment's settings of that teacher go with it.
    """
    further = [place for place in placed if int(place.removeprefix(GROUP)) > count]
    return [f"~{place}" for place in sorted(further)]


def placed_in_jobs(override: Override) -> bool:
    """Whether it composes only with the experiment that places this teacher."""
    return (override.key_or_group == GROUP and override.package is not None) or (
        override.is_delete() and NUMBERED.match(override.key_or_group) is not None
    )


def _placed_by_experiments(overrides: list[Override], config_dir: Path | None) -> frozenset[str]:
    """Teacher nodes set by the experiment's defaults list (`/teacher@teacher2: b`).

    Raises ConfigError for swept experiments with different teachers if others are chosen.
    """
    places: frozenset[str] = frozenset()
    for override in overrides:
        if override.key_or_group != "experiment":
            continue
        names = _swept(override) if override.is_sweep_override() else [override.value()]
        found = {str(name): frozenset(_placed_by(str(name), config_dir)) for name in names}
        if len(set(found.values())) > 1 and any(_chooses_teacher(o) for o in overrides):
            counts = ", ".join(f"{name}: {len(which) + 1}" for name, which in found.items())
            raise ConfigError(
                f"The swept experiments have different numbers of teachers ({counts}): "
                "choose teachers in one command for each number."
            )
        places = next(iter(found.values()), places)
    return places


def _chooses_teacher(override: Override) -> bool:
    return _chooses(override) and (override.key_or_group == GROUP or bool(_place(override)))


def _placed_by(experiment: str, config_dir: Path | None) -> set[str]:
    """Teacher nodes of one experiment and of the experiments it includes."""
    path = config_groups.option_path("experiment", experiment, config_dir)
    if path is None:
        return set()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = content["defaults"] if isinstance(content, dict) else []
    except (yaml.YAMLError, ValueError, OSError, RecursionError, KeyError):
        return set()  # reported where the file is composed
    places: set[str] = set()
    for entry in defaults if isinstance(defaults, list) else []:
        if isinstance(entry, str) and entry.startswith("/experiment/"):
            places |= _placed_by(entry.removeprefix("/experiment/"), config_dir)
        for key in entry if isinstance(entry, dict) else []:
            place = str(key).removeprefix("override ").strip().removeprefix(f"/{GROUP}@")
            if NUMBERED.match(place):
                places.add(place)
    return places


def _add(merged: list[str], place: str, value: str) -> None:
    """Append `teacher2=b` to the list of teachers if it comes next, else as a separate word."""
    for position, word in enumerate(merged):
        key, _, names = word.partition("=")
        if key == GROUP and "," not in value:
            listed = names.strip("[]").split(",")
            swept = "," in names and not names.startswith("[")
            if not swept and len(listed) + 1 == int(place.removeprefix(GROUP)):
                merged[position] = f"{GROUP}=[{','.join([*listed, value])}]"
                return
    merged.append(f"{place}={value}")
