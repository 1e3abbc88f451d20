"""Explain mistakes in choosing a group's option: `student=resnet9`, `+experiment=x`, `loss=[]`."""

from typing import Any

from hydra.core.override_parser.types import Override

from kdrun.cli.command_spec import CommandSpec, full_key, near, value_text, values
from kdrun.cli.config_groups import INTERNAL
from kdrun.config.teachers import NUMBERED
from kdrun.errors import ConfigError

# More options than this are counted, not listed.
LISTED = 15


def check(spec: CommandSpec, override: Override) -> None:
    """Raise ConfigError for a group or an option that does not exist or is not allowed here."""
    key, full = override.key_or_group, full_key(override)
    used = spec.primary.groups
    added = override.is_add() or override.is_force_add()
    if key not in spec.group_options:
        raise ConfigError(_unknown_group(spec, key))
    if full in used:
        if added:
            value = value_text(override)
            raise ConfigError(f"{key} is already there: type {full}={value}, without '+'.")
    elif not added and not (key == "teacher" and NUMBERED.match(override.package or "")):
        raise ConfigError(_unused_group(spec, override))
    for value in values(spec, override):
        _check_choice(spec, key, full, value)


def _unknown_group(spec: CommandSpec, key: str) -> str:
    match = near(key, spec.group_options)
    meant = f" Did you mean {match}=...?" if match else ""
    return f"There is no group '{key}'.{meant or ' kdrun ls lists the groups.'}"


def _unused_group(spec: CommandSpec, override: Override) -> str:
    key = override.key_or_group
    used = list(spec.primary.groups)
    value = value_text(override)
    same = [name for name in used if name.split("@")[0] == key]
    if same:
        choices = " or ".join(f"{name}={value}" for name in same)
        return f"{full_key(override)} is not a place {spec.verb} knows: type {choices}."
    if key in INTERNAL:
        roles = [f"{name}={value}" for name in ("student", "teacher") if name in used]
        return f"'{key}' is not chosen as such: type {' or '.join(roles) or 'another verb'}."
    return f"{spec.verb} does not use the group '{key}'. It has: {', '.join(used)}."


def _check_choice(spec: CommandSpec, key: str, full: str, value: Any) -> None:
    default = spec.primary.groups.get(full)
    options = spec.options(key)
    if value is None:
        if default is not None:
            raise ConfigError(f"{full}=null: {spec.verb} needs a {key}. {_listed(key, options)}")
        return
    if isinstance(value, list):
        if not isinstance(default, list):
            first = value[0] if value else "NAME"
            raise ConfigError(
                f"{full} takes one option, e.g. {full}={first}; "
                f"to run several, one after the other: -m {full}={','.join(map(str, value))}."
            )
        if not value:
            pair = [*default, *(name for name in reversed(options) if name not in default)][:2]
            raise ConfigError(
                f"The objective is empty: choose a {key}, e.g. {key}={pair[0]} "
                f"or '{key}=[{','.join(pair)}]'."
            )
        for item in value:
            _check_option(spec, key, full, item)
        twice = next((item for item in value if value.count(item) > 1), None)
        if twice is not None:
            raise ConfigError(
                f"{full}=[{','.join(value)}] names {twice} twice: name it once, and "
                f"set its weight with {key}.{twice}.weight=..."
            )
        return
    _check_option(spec, key, full, value)


def _check_option(spec: CommandSpec, key: str, full: str, value: Any) -> None:
    options = spec.options(key)
    name = str(value)
    if isinstance(value, str) and name in options:
        return
    if isinstance(value, list | dict):
        raise ConfigError(f"{full} takes names, e.g. '{full}=[{','.join(options[:2])}]'.")
    if not name:
        raise ConfigError(f"{full}= has no value. {_listed(key, options)}")
    if not options:
        raise ConfigError(
            f"There is no {key} '{name}', nor any other: put {name}.yaml into DIR/{key}/ and add "
            "--config-dir DIR."
        )
    kin = {"loss": "scheme", "scheme": "loss"}.get(key)  # tf_kd is a scheme, dkd a loss
    if kin is not None and name in spec.options(kin):
        raise ConfigError(f"There is no {key} '{name}': it is a {kin}, type {kin}={name}.")
    bare = name.removesuffix(".yaml")
    match = _closest(bare, options)
    if match is not None and match.lower() == name.lower():
        raise ConfigError(f"There is no {key} '{name}': names are case-sensitive, type '{match}'.")
    meant = f" Did you mean '{match}'?" if match else ""
    raise ConfigError(f"There is no {key} '{name}'.{meant} {_listed(key, options)}")


def _closest(name: str, options: list[str]) -> str | None:
    """Resolve an option; the folder of a nested option may be omitted."""
    last = {option.rpartition("/")[2]: option for option in reversed(options)}
    if name in options or name in last:
        return name if name in options else last[name]
    return near(name, options, cutoff=0.5) or last.get(near(name, last, cutoff=0.5) or "")


def _listed(key: str, options: list[str]) -> str:
    if len(options) > LISTED:
        return f"kdrun ls {key} lists all {len(options)} options."
    return f"Options: {', '.join(options)}."
