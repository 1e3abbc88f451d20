"""The key of the JSON files in tar shards that holds the split of each sample."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kdrun.data.containers.shards import Shards
from kdrun.data.containers.split_columns import SplitEvidence, SplitValues
from kdrun.errors import DataError

MOST_KEYS = 1000
IGNORE = "dataset.split_key=false to ignore it"


@dataclass
class JsonSplits:
    """Reads the split of each sample, or looks for a key that holds it.

    key: `dataset.split_key`; None looks for keys of splits, False ignores them.
    """

    key: str | bool | None = None
    _seen: dict[str, SplitEvidence] = field(default_factory=dict)
    _samples: int = 0

    def __post_init__(self) -> None:
        key = self.key if isinstance(self.key, str) else ""
        self._values = SplitValues(key)

    @classmethod
    def of(cls, shards: Shards, key: str | bool | None) -> "JsonSplits":
        """Raises ConfigError for a key if the names of the files tell the splits already."""
        return cls(False if shards.tell_splits("dataset.split_key", key, "shards") else key)

    def split(self, text: bytes | None, where: str) -> str:
        """The split of a sample; train unless a key is read. text: its JSON file.

        Raises DataError for a sample without the key, or whose value names no split.
        """
        if self.key is False:
            return "train"
        members = dict(_members(text))
        if isinstance(self.key, str):
            value = members.get(self.key)
            split = self._values.find(value)
            if split is None:
                raise DataError(
                    f"{where} has {value!r} as {self.key!r}, which names no split: write train, "
                    f"val or test, or set {IGNORE}."
                )
            return split
        for key in members if len(self._seen) < MOST_KEYS else ():
            if key not in self._seen:
                earlier = {""} if self._samples else set()
                self._seen[key] = SplitEvidence(key, rows=self._samples, others=earlier)
        self._samples += 1
        for key, evidence in self._seen.items():
            if evidence.is_possible:
                evidence.add(members.get(key))
        return "train"

    def refuse_overlooked(self, where: str) -> None:
        """Raise DataError for a key of splits that is not read."""
        for key, evidence in self._seen.items():
            if evidence.must_be_read:
                setting = shlex.quote(f"dataset.split_key={key}")
                raise DataError(
                    f"{where}: {key!r} in the JSON files tells the splits: set {setting} to read "
                    f"it, or {IGNORE}."
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
            only = member[0] if isinstance(member, list) and len(member) == 1 else member
            yield f"{prefix}{name}", only
