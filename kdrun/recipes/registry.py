"""Named functions that declare which settings of a schedule they read.

Validation (a setting that nothing reads is refused) and teacher fingerprints (a setting that is
read counts) derive from the declaration, so registering a function is all it takes to add one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from kdrun.errors import did_you_mean

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


@dataclass(frozen=True)
class Entry(Generic[FunctionT]):
    """A registered function. reads: names of the `schedule` settings that affect its result."""

    function: FunctionT
    reads: tuple[str, ...]


class Registry(Generic[FunctionT]):
    """Functions by name, for one setting of `schedule`; also the check of that setting's values."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self._entries: dict[str, Entry[FunctionT]] = {}

    def register(self, name: str, *, reads: tuple[str, ...] = ()) -> Callable[..., FunctionT]:
        """Decorator: register a function as `name`.

        reads: the settings it depends on that not every function of this registry reads; `lr`,
        `epochs` and `weight_decay`, which all of them read, need no mention.
        """

        def add(function: FunctionT) -> FunctionT:
            self._entries[name] = Entry(function, reads)
            return function

        return add

    def __getitem__(self, name: str) -> FunctionT:
        return self._entries[name].function

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def reads(self, name: str) -> tuple[str, ...]:
        """The settings that the function `name` declares."""
        return self._entries[name].reads

    def optional_settings(self) -> list[str]:
        """Every setting that some function declares, in order of registration."""
        return list(dict.fromkeys(key for entry in self._entries.values() for key in entry.reads))

    def readers(self, setting: str) -> list[str]:
        """The functions that read `setting`."""
        return [name for name, entry in self._entries.items() if setting in entry.reads]

    def problem(self, value: object) -> str | None:
        """What is wrong with a value of the setting, to follow `name=value`; None for a name."""
        if value in self._entries:
            return None
        names = list(self._entries)
        return f"is not one of {', '.join(names)}.{did_you_mean(str(value), names)}"
