"""The groups and overrides that a command accepts."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override, ValueType

from kdrun.cli import config_groups, grammar, verbs
from kdrun.cli.grammar import check_jobs
from kdrun.errors import ConfigError, closest


@dataclass(frozen=True)
class CommandSpec:
    """What a verb with a configuration accepts: its groups, their options and its settings.

    config_name: its YAML below `configs/`. config_dir: the user's own options.
    """

    verb: str
    config_name: str
    config_dir: Path | None
    group_options: dict[str, list[str]]
    primary: config_groups.Primary

    @classmethod
    def of(cls, verb: str, config_dir: Path | None = None) -> "CommandSpec":
        """Look up the groups and settings of `verb`."""
        name = verbs.config_names()[verb]
        known = config_groups.primary(name)
        # A group of the defaults list is one even where it has no option yet.
        empty: dict[str, list[str]] = {group.split("@")[0]: [] for group in known.groups}
        return cls(verb, name, config_dir, empty | config_groups.list_groups(config_dir), known)

    def options(self, group: str) -> list[str]:
        """The options of a group, those in folders below it as `folder/name`."""
        return self.group_options.get(group, [])

    def is_group(self, override: Override) -> bool:
        """Whether the override chooses options of a group, rather than setting a value."""
        key = override.key_or_group
        chooses = key in self.group_options or "/" in key or override.package is not None
        return chooses and not isinstance(override.value(), dict)

    def is_structural(self, override: Override) -> bool:
        """Whether it requires a new composition; other overrides only replace values."""
        plain = not (override.is_delete() or override.is_add() or override.is_force_add())
        return self.is_group(override) or is_hydra(override) or not plain

    def is_only_for_sweeps(self, override: Override) -> bool:
        """Whether it configures the sweep and no job.

        A `sweep=NAME` whose file also sets something else configures the jobs, too.
        """
        key = override.key_or_group
        name = str(override.value()) if key == "sweep" else ""
        return is_sweep_setting(key) and not (
            name and config_groups.settings_beside("sweep", name, self.config_dir)
        )


def is_hydra(override: Override) -> bool:
    """Whether it is for Hydra itself (`hydra.sweep.dir=...`, `hydra/launcher=joblib`)."""
    return override.key_or_group.replace("/", ".").split(".")[0] == "hydra"


def is_sweep_setting(key: str) -> bool:
    """Whether a setting is about the sweep, not about its jobs (`sweep=lr`, `sweep.fail_fast`)."""
    return key == "sweep" or key.startswith("sweep.")


def full_key(override: Override) -> str:
    """`schedule@teacher.schedule`, or the key alone."""
    package = override.package
    return override.key_or_group if package is None else f"{override.key_or_group}@{package}"


def value_text(override: Override) -> str:
    """The value as typed; all values for a sweep."""
    return (override.input_line or "").partition("=")[2]


def elements(spec: CommandSpec, override: Override) -> list[str]:
    """Expand a swept override into single overrides, as text.

    Raises ConfigError for a sweep that cannot be enumerated.
    """
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        glob = override.value()
        assert isinstance(glob, Glob)
        names = _glob(glob, spec.options(override.key_or_group))
        if not names:
            raise ConfigError(
                f"{override.input_line} matches no option of {override.key_or_group}: "
                f"{', '.join(spec.options(override.key_or_group)) or 'it has none'}."
            )
        return [f"{key}={name}" for name in names]
    check_jobs([override])
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line} has no list of values to run: name them, e.g. {key}=1,2,4."
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def values(spec: CommandSpec, override: Override) -> list[Any]:
    """The value of an override; all values for a swept one."""
    if not override.is_sweep_override():
        return [override.value()]
    return [one.value() for one in grammar.parse(elements(spec, override))]


def near(word: str, options: Iterable[str], cutoff: float = 0.65) -> str | None:
    """The option closest to the typo `word`, or None."""
    known = list(options)
    same = next((option for option in known if option.lower() == word.lower()), None)
    return same or closest(word, known, cutoff)


def _glob(glob: Glob, names: list[str]) -> list[str]:
    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    return [n for n in names if matches(n, glob.include) and not matches(n, glob.exclude)]
