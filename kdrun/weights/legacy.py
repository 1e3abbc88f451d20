"""PyTorch files of before version 1.6: pickles one after another, then the storages.

magic number, protocol version, facts about the machine, the content, the keys of the storages, and
for each of them its element count (8 bytes) and its elements.
"""

from typing import IO, Any

from kdrun.weights.lazy import UnreadableError
from kdrun.weights.pickles import read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


class LegacySource:
    """Storages that lie one after another in a file; their places are known after the content."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self.file = file
        self.length = length
        self.itemsizes: dict[str, int] = {}
        self.places: dict[str, int] = {}

    def expect(self, key: str, itemsize: int) -> None:
        """The content has a storage with elements of so many bytes."""
        self.itemsizes[key] = itemsize

    def find(self, keys: list[str]) -> None:
        """Note where each storage begins and how many elements it has."""
        position = self.file.tell()
        for key in keys:
            self.file.seek(position)
            head = self.file.read(8)
            count = int.from_bytes(head, "little", signed=True)
            if len(head) < 8 or count < 0:
                raise UnreadableError("it ends within its tensors; it may be cut off")
            self.places[key] = position + 8
            position += 8 + count * self.itemsizes.get(key, 1)
        if position > self.length:
            raise UnreadableError(
                f"it ends after {self.length:,} of {position:,} bytes; it may be cut off"
            )

    def read(self, key: str, size: int) -> bytearray:
        """The bytes of a storage."""
        if key not in self.places:
            raise UnreadableError(f"storage {key[:40]} is missing")
        start = self.places[key]
        if start + size > self.length:
            raise UnreadableError("it ends within its tensors; it may be cut off")
        self.file.seek(start)
        return bytearray(self.file.read(size))


class NoSource:
    """For pickles that hold no storages of their own."""

    def expect(self, key: str, itemsize: int) -> None:
        """There is nothing to note."""

    def read(self, key: str, size: int) -> bytearray:
        """There is nothing to read."""
        raise UnreadableError(f"storage {key[:40]} is missing")


def read_legacy(file: IO[bytes], length: int) -> tuple[Any, set[str]]:
    """(content, names of what was left inert) of a legacy file, or of a plain pickle.

    file: positioned at its start, of `length` bytes; tensors are read from it later.
    """
    first, inert = read_pickle(file, NoSource())
    if first != MAGIC or isinstance(first, bool):
        return first, inert  # pickle.dump of arrays, or of tensors with their storages inside
    version, _ = read_pickle(file, NoSource())
    if version != PROTOCOL:
        raise UnreadableError(f"it is of an unknown version, {str(version)[:20]}")
    machine, _ = read_pickle(file, NoSource())
    if isinstance(machine, dict) and machine.get("little_endian") is False:
        raise UnreadableError("it was written on a big-endian machine")
    source = LegacySource(file, length)
    content, inert = read_pickle(file, source)
    keys, _ = read_pickle(file, NoSource())
    if not isinstance(keys, list) or not all(isinstance(k, str | int) for k in keys):
        raise UnreadableError("the list of its storages is damaged")
    source.find([str(key) for key in keys])
    return content, inert
