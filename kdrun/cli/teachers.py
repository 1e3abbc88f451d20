"""Several teachers on the command line: what is typed, and what Hydra is given for it.

Hydra merges a list of options into one node, and teachers must stay apart. So `teacher=[a,b]` is
handed on as `teacher=a +teacher@teacher2=b`, and settings of one teacher (`teacher2.seed=3`), which
its node does not have before, are forced in. `kdrun.config.teachers` puts them together.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra.core.override_parser.types import Glob, Override

from kdrun.cli import config_groups, grammar
from kdrun.config.teachers import NUMBERED
from kdrun.errors import ConfigError

GROUP = "teacher"


def spread(words: Sequence[str], config_dir: Path | None = None) -> list[str]:
    """The overrides in `words` as Hydra takes them.

    Raises ConfigError for lists that are empty or swept.
    """
    overrides = grammar.parse(words)
    placed = _placed_by_experiments(overrides, config_dir)
    found: list[str] = []
    for word, override in zip(words, overrides, strict=True):
        key = override.key_or_group
        if key == GROUP and override.package is None and _chooses(override):
            found += _choices(override, word, placed)
        elif _place(override) and _chooses(override):
            found.append(_placing(_place(override), word.partition("=")[2], placed))
        elif _is_bare(override) and _belongs_to_one(override):
            _check_schedule(override, word)
            found.append(f"+{word}" if override.package else f"++{word}")
        else:
            found.append(word)
    return found


def gathered(words: Iterable[str]) -> list[str]:
    """The inverse of `spread`: overrides as a person would type them."""
    words = list(words)
    if any(word.startswith(f"{GROUP}=") for word in words):  # it takes the others away by itself
        words = [word for word in words if not word.startswith(f"~{GROUP}@")]
    found: list[str] = []
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        package = key.removeprefix(f"{GROUP}@")
        if package != key and NUMBERED.match(package):
            _add(found, package, value)
        elif _root(key):
            found.append(f"{key}={value}")
        else:
            found.append(word)
    return found


def own_settings(override: Override) -> str | None:
    """`teacher2` for settings of that teacher alone, else None."""
    root = override.key_or_group.partition(".")[0]
    within = "." in override.key_or_group and override.package is None
    return root if within and NUMBERED.match(root) and override.is_force_add() else None


def _place(override: Override) -> str:
    """`teacher2` for `teacher2=a` and `teacher@teacher2=a`, else nothing."""
    key = override.key_or_group
    place = override.package or "" if key == GROUP else key if override.package is None else ""
    return place if NUMBERED.match(place) else ""


def _chooses(override: Override) -> bool:
    """Whether it names options, rather than setting values or taking something away."""
    return _is_bare(override) and not isinstance(override.value(), dict)


def _is_bare(override: Override) -> bool:
    return not (override.is_delete() or override.is_add() or override.is_force_add())


def _belongs_to_one(override: Override) -> bool:
    """`teacher2.seed=1`, or `schedule@teacher2.schedule=adam`."""
    return _root(override.package or override.key_or_group)


def _check_schedule(override: Override, word: str) -> None:
    key, _, value = word.partition("=")
    if key.endswith(".schedule") and override.package is None and _chooses(override):
        raise ConfigError(
            f"{key} is a group of settings: to choose one, type schedule@{key}={value}."
        )


def _root(key: str) -> bool:
    root, dot, _ = key.partition("@")[2].partition(".") if "@" in key else key.partition(".")
    return bool(dot) and NUMBERED.match(root) is not None


def _choices(override: Override, word: str, placed: frozenset[str]) -> list[str]:
    """`teacher=a` or `teacher=[a,b]`, with the places that an experiment fills besides."""
    value = override.value()
    if override.is_sweep_override():
        if any(isinstance(one, list) for one in _swept(override)):
            raise ConfigError(
                f"'{word}' would sweep over lists of teachers: sweep over single ones "
                "(teacher=A,B) or teacher.count=1,3, or run one command for each list."
            )
        return [word, *_removals(placed, 1)]
    names = value if isinstance(value, list) else [value]
    if not names:
        raise ConfigError("The list of teachers is empty: name one, teacher=A, or 'teacher=[A,B]'.")
    if any(isinstance(name, list | dict) or name is None for name in names):
        raise ConfigError(f"'{word}' is not a list of names: type 'teacher=[A,B]'.")
    first = word if not isinstance(value, list) else f"{GROUP}={names[0]}"
    more = [_placing(f"{GROUP}{n}", str(name), placed) for n, name in enumerate(names[1:], 2)]
    return [first, *more, *_removals(placed, len(names))]


def _swept(override: Override) -> list[Any]:
    if not override.is_choice_sweep() or isinstance(override.value(), Glob):
        return []  # a glob matches names
    texts = override.sweep_string_iterator()
    return [one.value() for one in grammar.parse([f"{GROUP}={text}" for text in texts])]


def _placing(place: str, value: str, placed: frozenset[str]) -> str:
    sign = "" if place in placed else "+"
    return f"{sign}{GROUP}@{place}={value}"


def _removals(placed: frozenset[str], count: int) -> list[str]:
    """What takes away the further teachers of an experiment: `teacher=` names all there are."""
    further = [place for place in placed if int(place.removeprefix(GROUP)) > count]
    return [f"~{GROUP}@{place}" for place in sorted(further)]


def _placed_by_experiments(overrides: list[Override], config_dir: Path | None) -> frozenset[str]:
    """The places that the chosen experiment's own defaults list fills (`/teacher@teacher2: b`)."""
    found: set[str] = set()
    for override in overrides:
        if override.key_or_group == "experiment" and not override.is_sweep_override():
            found |= _placed_by(str(override.value()), config_dir)
    return frozenset(found)


def _placed_by(experiment: str, config_dir: Path | None) -> set[str]:
    """Those of one experiment, and of the experiments it is made of."""
    path = config_groups.option_path("experiment", experiment, config_dir)
    if path is None:
        return set()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = content["defaults"] if isinstance(content, dict) else []
    except (yaml.YAMLError, ValueError, OSError, RecursionError, KeyError):
        return set()  # reported where the file is composed
    found: set[str] = set()
    for entry in defaults if isinstance(defaults, list) else []:
        if isinstance(entry, str) and entry.startswith("/experiment/"):
            found |= _placed_by(entry.removeprefix("/experiment/"), config_dir)
        for key in entry if isinstance(entry, dict) else []:
            place = str(key).removeprefix("override ").strip().removeprefix(f"/{GROUP}@")
            if NUMBERED.match(place):
                found.add(place)
    return found


def _add(found: list[str], place: str, value: str) -> None:
    """`teacher2=b` into the list of teachers when it continues one, else a separate word."""
    for position, word in enumerate(found):
        key, _, names = word.partition("=")
        if key == GROUP and "," not in value:
            listed = names.strip("[]").split(",")
            swept = "," in names and not names.startswith("[")
            if not swept and len(listed) + 1 == int(place.removeprefix(GROUP)):
                found[position] = f"{GROUP}=[{','.join([*listed, value])}]"
                return
    found.append(f"{place}={value}")
