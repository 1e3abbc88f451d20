"""What can be chosen: config groups, their options and the keys of each verb.

Read from the YAML files themselves, the package's and those of `--config-dir`, so nothing has to
be kept in step by hand and nothing heavy is imported.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from kdrun.config import options
from kdrun.config.options import MODEL, NETWORK_GROUPS
from kdrun.config.shipped import config_folders, shipped_configs
from kdrun.errors import ConfigError

# `model/x.yaml` is chosen as student=x or teacher=x.
INTERNAL = (MODEL,)

# The first line of an option that also sets things outside its own group.
GLOBAL_PACKAGE = "# @package _global_"

# Folders of YAML that are no options: published results that `kdrun report` compares with.
NO_GROUPS = ("published",)

# Hydra's own groups lie one folder deeper: `hydra/launcher`.
HYDRA = ("hydra",)


@dataclass(frozen=True)
class Key:
    """A top-level setting of a verb: its value in the YAML, and its comment there.

    inner: the comments of the settings within it.
    """

    value: Any
    comment: str
    inner: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """Settings of one subject: those below one comment in a verb's YAML."""

    title: str
    keys: dict[str, Key]


@dataclass(frozen=True)
class Primary:
    """The structure of a verb's configuration.

    groups: group, or `group@package`, → the default choice (None: nothing is chosen).
    keys: top-level settings. below: node → settings it has whatever is chosen for it.
    """

    groups: dict[str, Any]
    keys: dict[str, Key]
    below: dict[str, dict[str, Key]]

    def names(self) -> list[str]:
        """All valid first parts of an override key of this verb."""
        return [*self.keys, *(group for group in self.groups if "@" not in group)]


def list_groups(config_dir: Path | None = None) -> dict[str, list[str]]:
    """Group → its options, both sorted; those in a folder of a group are named `folder/option`."""
    found: dict[str, set[str]] = {}
    for root in config_folders(config_dir):
        for path in root.rglob("*.yaml"):
            folders = path.parent.relative_to(root).parts
            depth = 2 if folders[:1] == HYDRA else 1
            group = "/".join(folders[:depth])
            if group and group not in NO_GROUPS:
                found.setdefault(group, set()).add("/".join([*folders[depth:], path.stem]))
    for group in NETWORK_GROUPS:
        found[group] = found.get(group, set()) | found[MODEL]
    return {group: sorted(found[group]) for group in sorted(found)}


def split_name(name: str, known: Iterable[str]) -> tuple[str, str]:
    """(group, option) of `group/option`, where there is such a group; else ("", name)."""
    group = next((group for group in known if name.startswith(f"{group}/")), "")
    return group, name.removeprefix(f"{group}/") if group else name


def option_path(group: str, name: str, config_dir: Path | None = None) -> Path | None:
    """The YAML of an option; the package's file takes precedence, as in Hydra."""
    names = [f"{group}/{name}.yaml"]
    if group in NETWORK_GROUPS:
        names.append(f"{MODEL}/{name}.yaml")
    candidates = (root / one for one in names for root in config_folders(config_dir))
    return next((path for path in candidates if path.is_file()), None)


def option_tree(group: str, name: str, config_dir: Path | None = None) -> dict[str, Any]:
    """The settings of an option as nested dicts, including those it inherits.

    A reading of the files that is good enough to offer names; Hydra's composition is the truth.
    """
    if not group and name in options.nodes():  # defaults from the schema
        return dict(options.nodes()[name].values)
    path = option_path(group, name, config_dir)
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return {}
    if text.startswith(GLOBAL_PACKAGE):
        return content.get(group) or {}
    tree: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            bare = entry.removesuffix("@_here_")
            whole = bare[1:] if bare.startswith("/") else f"{group}/{bare}"
            above, _, base = whole.rpartition("/")
            tree |= option_tree(above, base, config_dir)
    return tree | content


def settings_beside(group: str, name: str, config_dir: Path | None = None) -> set[str]:
    """What the file of `sweep=NAME` or `search=NAME` sets besides the sweep or the search."""
    path = option_path(group, name, config_dir)
    text = path.read_text(encoding="utf-8") if path is not None else ""
    content = yaml.safe_load(text) or {}
    own = {"hydra", group} if text.startswith(GLOBAL_PACKAGE) else set(content)
    return set(content) - own


def losses_in(group: str, name: str, config_dir: Path | None = None) -> set[str]:
    """The losses that a scheme or an experiment has settings for, chosen or not."""
    path = option_path(group, name, config_dir)
    if path is None:
        return set()
    text = path.read_text(encoding="utf-8")
    content = (yaml.safe_load(text) if text.startswith(GLOBAL_PACKAGE) else None) or {}
    found = set(content.get("loss") or {})
    for entry in content.get("defaults") or []:  # what an experiment is made of
        if isinstance(entry, str) and entry.startswith(f"/{group}/"):
            found |= losses_in(group, entry.removeprefix(f"/{group}/"), config_dir)
    return found


def first_comment(path: Path) -> str:
    """The sentence a YAML opens with; that of the file it is made of when it has none itself."""
    text = path.read_text(encoding="utf-8", errors="replace")
    words: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("# @package"):
            continue
        words.append(line.lstrip("#").strip())
        if words[-1].endswith((".", ":")) or len(words) == 2:
            break
    if words:
        return " ".join(words).strip()
    base = re.search(r"^\s*-\s*/(\S+?)@_here_", text, re.MULTILINE)
    if base is None:
        return ""
    below = path.parents[len(Path(path.parent.name).parts)] / f"{base.group(1)}.yaml"
    if not below.is_file():
        below = shipped_configs() / f"{base.group(1)}.yaml"
    return first_comment(below) if below.is_file() else ""


@cache
def primary(config_name: str) -> Primary:
    """Groups and top-level keys of a verb's configuration, in the order of its YAML."""
    if config_name in options.nodes():
        return _of_schema(options.nodes()[config_name])
    text = (shipped_configs() / f"{config_name}.yaml").read_text(encoding="utf-8")
    groups: dict[str, Any] = {}
    included: dict[str, Key] = {}
    below: dict[str, dict[str, Key]] = {}
    content = yaml.safe_load(text)
    for entry in content.pop("defaults", []):
        if isinstance(entry, dict):
            group, choice = next(iter(entry.items()))
            if not group.startswith("override "):
                groups[group.removeprefix("optional ")] = choice
        elif entry != "_self_":
            name, _, package = entry.partition("@")
            base = primary(name)
            if package:
                below.setdefault(package, {}).update(base.keys)
                continue
            groups |= base.groups
            included |= base.keys
            below |= base.below
    first = options.nodes().get(f"{config_name}_keys")  # the verb's settings
    head = {} if first is None else {key: included[key] for key in first.values}
    keys = head | _keys(text) | _short_names(config_name) | included
    return Primary(groups, keys, below)


def _short_names(config_name: str) -> dict[str, Key]:
    """`ce.kind` and the like, with the defaults and help texts of the settings they stand for."""
    if config_name not in options.TRAINED_SCHEDULE:
        return {}
    node = options.nodes()["schedule_keys"]
    return {
        short: Key(node.values[key], node.help[key]) for short, key in options.SHORT_NAMES.items()
    }


def sections(config_name: str) -> list[Section]:
    """The settings of a verb by subject, its own before those that it includes."""
    found: dict[str, dict[str, Key]] = {}
    first = f"{config_name}_keys"
    names = sorted(_sources(config_name), key=lambda name: name != first)
    seen: set[str] = set()
    for name in names:
        for key, setting in primary(name).keys.items():
            if key not in seen:
                seen.add(key)
                found.setdefault(options.section_of(key), {})[key] = setting
    return [Section(title, keys) for title, keys in found.items()]


def _sources(config_name: str) -> list[str]:
    """The nodes and YAMLs that hold a verb's top-level settings, each without what it includes."""
    if config_name in options.nodes():
        return [config_name]
    path = shipped_configs() / f"{config_name}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [config_name]
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and "@" not in entry:
            names += _sources(entry)
    return names


def _of_schema(node: options.Node) -> Primary:
    """The settings of a node of defaults, those of its nested groups in `below`."""
    nested = options.nested_help()
    keys = {
        key: Key(value, node.help[key], nested.get(key, {})) for key, value in node.values.items()
    }
    below = {
        group: {key: Key(value, help[key]) for key, value in keys[group].value.items()}
        for group, help in nested.items()
        if group in keys
    }
    return Primary({}, keys, below)


def _keys(text: str) -> dict[str, Key]:
    content = yaml.safe_load(text)
    comments = dict(re.findall(r"^(\w+):[^#\n]*#[ ]*(.*)$", text, re.MULTILINE))
    return {
        name: Key(value, comments.get(name, ""))
        for name, value in content.items()
        if name not in ("defaults", "hydra")
    }


def require_readable(config_dir: Path | None) -> None:
    """Raise ConfigError for the first YAML of the user's folder that does not parse."""
    broken = None if config_dir is None else broken_yaml(config_dir)
    if broken is not None:
        raise ConfigError(f"A file in --config-dir cannot be read: {broken}.")


def broken_yaml(config_dir: Path) -> str | None:
    """`file, line N: what` for the first YAML of the user's folder that does not parse."""
    for path in sorted(config_dir.rglob("*.yaml")):
        try:
            yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = f", line {mark.line + 1}" if mark is not None else ""
            return f"{path}{line}: {error.problem}"
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            return f"{path}: {str(error).splitlines()[0]}"
    return None
