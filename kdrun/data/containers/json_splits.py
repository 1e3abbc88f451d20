"""The key of the JSON files in tar shards that holds the split of each sample."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kdrun.data.containers.shards import Shards
from kdrun.data.containers.split_values import SplitValues
from kdrun.data.containers.table_columns import flag_splits
from kdrun.errors import ConfigError, DataError

IGNORE = "dataset.split_key=false to ignore it"


@dataclass
class JsonSplits:
    """Reads the split of each sample, or watches for keys that tell it.

    key: `dataset.split_key`; None watches, False ignores splits. A key is dropped at the first
    sample without it, or whose value names no split.
    """

    key: str | bool | None = None
    _seen: dict[str, set[str]] | None = None
    _values: dict[str, SplitValues] = field(default_factory=dict)

    @classmethod
    def of(cls, shards: Shards, key: str | bool | None) -> "JsonSplits":
        """Raises ConfigError for a key beside file names that tell the splits already."""
        named = set(shards.splits) != {"train"}
        if named and isinstance(key, str):
            raise ConfigError(
                f"dataset.split_key={key}: the names of the shards already tell their splits: "
                "leave it out, or list all shards in dataset.train."
            )
        return cls(False if named else key)

    def split(self, text: bytes | None, where: str) -> str:
        """The split of a sample; train unless a key is read. text: its JSON file.

        Raises DataError for a sample without the key, or whose value names no split.
        """
        if self.key is False or self._seen == {}:
            return "train"
        members = dict(_members(text))
        if isinstance(self.key, str):
            split = self._find(self.key, members.get(self.key))
            if split is None:
                raise DataError(
                    f"{where} has {members.get(self.key)!r} as {self.key!r}, which names no split: "
                    f"write train, val or test, or set {IGNORE}."
                )
            return split
        found = {key: split for key in members if (split := self._find(key, members[key]))}
        if self._seen is None:
            self._seen = {key: {split} for key, split in found.items()}
        else:
            self._seen = {
                key: {*splits, found[key]} for key, splits in self._seen.items() if key in found
            }
        return "train"

    def _find(self, key: str, value: Any) -> str | None:
        flagged = flag_splits(key.rsplit(".", 1)[-1])
        if not isinstance(value, str) and not (flagged and isinstance(value, int)):
            return None
        if key not in self._values:
            self._values[key] = SplitValues(key, flagged=flagged)
        return self._values[key].find(str(value))

    def refuse_overlooked(self, where: str) -> None:
        """Raise DataError for a key that tells the split of every sample, train among others."""
        for key, splits in (self._seen or {}).items():
            if "train" in splits and len(splits) > 1:
                setting = shlex.quote(f"dataset.split_key={key}")
                raise DataError(
                    f"{where}: {key!r} in the JSON files tells the split of every sample: set "
                    f"{setting} to read it, or {IGNORE}."
                )


def _members(text: bytes | None) -> Iterator[tuple[str, Any]]:
    """`split` or `meta.split` → value, for each member of the JSON; none if it is not an object."""
    try:
        value = json.loads(text) if text is not None else None
        yield from _flat(value, "")
    except (ValueError, RecursionError):
        return


def _flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, member in value.items() if isinstance(value, dict) else ():
        if isinstance(member, dict):
            yield from _flat(member, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", member
