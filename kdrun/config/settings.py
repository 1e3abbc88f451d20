"""Fields of the schema and how they appear in YAML: name, help, default, place in a node.

    split_seed: Seed = setting(0, "chooses the validation images")

`kdrun.config.convert` reads and writes nodes by these declarations; help pages and completion show
their help texts. Imports neither OmegaConf nor torch.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MISSING = "???"  # OmegaConf's mark of a value that the user must give
Reader = Callable[[Any, str], Any]


@dataclass(frozen=True)
class Meta:
    """What a field declares besides its type and default.

    help: one line for help pages. key: its name in YAML, where that differs.
    rest: the field collects all keys of the node that no other field claims.
    inline: the keys of this nested dataclass lie in the parent's node.
    quiet: left out of the written form while it holds its default, so that configurations and
        fingerprints made before the setting existed stay the same.
    read: `(value, name) -> value` instead of the conversion by type.
    """

    help: str = ""
    key: str | None = None
    rest: bool = False
    inline: bool = False
    quiet: bool = False
    read: Reader | None = None


def setting(default: Any, help: str = "", **meta: Any) -> Any:
    """A dataclass field with a default. default: a value, or a callable that makes one."""
    metadata = {"setting": Meta(help, **meta)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def required(help: str = "", **meta: Any) -> Any:
    """A dataclass field without a default."""
    return field(metadata={"setting": Meta(help, **meta)})


@dataclass(frozen=True)
class Setting:
    """One field of a dataclass. name: of the field. key: in YAML. hint: its type, with ranges."""

    name: str
    key: str
    hint: Any
    meta: Meta
    field: "dataclasses.Field[Any]"

    @property
    def is_declared(self) -> bool:
        """Whether the field was made with `setting` or `required`."""
        return "setting" in self.field.metadata

    @property
    def default(self) -> Any:
        """The default value; `MISSING` where the user must give one."""
        if self.field.default is not dataclasses.MISSING:
            return self.field.default
        if self.field.default_factory is not dataclasses.MISSING:
            return self.field.default_factory()
        return MISSING

    @property
    def nested(self) -> Any:
        """The dataclass that this field holds, or None."""
        options = typing.get_args(self.hint) or (self.hint,)
        return next((option for option in options if dataclasses.is_dataclass(option)), None)


def settings_of(cls: Any) -> tuple[Setting, ...]:
    """The fields of a schema dataclass, in order."""
    return _settings_of(cls)


def keys_of(cls: Any) -> tuple[str, ...]:
    """Every key that a dataclass reads from its node, those of inline parts included."""
    return _keys_of(cls)


@functools.cache
def _settings_of(cls: Any) -> tuple[Setting, ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    found = []
    for each in dataclasses.fields(cls):
        meta = each.metadata.get("setting", Meta())
        found.append(Setting(each.name, meta.key or each.name, hints[each.name], meta, each))
    return tuple(found)


@functools.cache
def _keys_of(cls: Any) -> tuple[str, ...]:
    return tuple(key for key, _ in _keys(cls))


def _keys(cls: Any) -> Iterator[tuple[str, Setting]]:
    for each in settings_of(cls):
        if each.meta.inline:
            yield from _keys(each.nested)
        elif not each.meta.rest:
            yield each.key, each


def help_of(cls: Any) -> dict[str, str]:
    """Key → one line of help, inline parts included."""
    return {key: each.meta.help for key, each in _keys(cls)}


def defaults_of(cls: Any) -> dict[str, Any]:
    """The node that holds every default, as plain values; `MISSING` where there is none."""
    return {key: _plain_default(each) for key, each in _keys(cls)}


def _plain_default(each: Setting) -> Any:
    default = each.default
    if dataclasses.is_dataclass(default):
        return defaults_of(type(default))
    if isinstance(default, tuple):
        return list(default)
    return None if default == {} and each.meta.quiet else default  # null in YAML: none
