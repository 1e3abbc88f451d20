"""PyTorch files from before version 1.6: consecutive pickles, then the storages.

Layout: magic number, protocol version, machine information, content, keys of the storages, and for
each storage its element count (8 bytes) and its elements.
"""

from typing import IO, Any

from kdrun.weights.lazy import UnreadableError
from kdrun.weights.pickles import read_pickle

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


class LegacySource:
    """Reads consecutive storages; their offsets are known after the content."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self.file = file
        self.length = length
        self.itemsizes: dict[str, int] = {}
        self.places: dict[str, int] = {}

    def expect(self, key: str, itemsize: int) -> None:
        """Remember the element size of a storage."""
        self.itemsizes[key] = itemsize

    def find(self, keys: list[str]) -> None:
        """Locate the storages. Raises UnreadableError for a truncated file."""
        position = self.file.tell()
        for key in keys:
            self.file.seek(position)
            head = self.file.read(8)
            count = int.from_bytes(head, "little", signed=True)
            if len(head) < 8 or count < 0:
                raise UnreadableError("it ends within its tensors; it may be truncated")
            self.places[key] = position + 8
            position += 8 + count * self.itemsizes.get(key, 1)
        if position > self.length:
            raise UnreadableError(
                f"it ends after {self.length:,} of {position:,} bytes; it may be truncated"
            )

    def read(self, key: str, size: int) -> bytearray:
        """The bytes of a storage."""
        if key not in self.places:
            raise UnreadableError(f"storage {key[:40]} is missing")
        start = self.places[key]
        if start + size > self.length:
            raise UnreadableError("it ends within its tensors; it may be truncated")
        self.file.seek(start)
        return bytearray(self.file.read(size))


class NoSource:
    """The source of pickles without storages."""

    def expect(self, key: str, itemsize: int) -> None:
        """Does nothing."""

    def read(self, key: str, size: int) -> bytearray:
        """Always raises UnreadableError."""
        raise UnreadableError(f"storage {key[:40]} is missing")


def read_legacy(file: IO[bytes], length: int) -> tuple[Any, set[str]]:
    """(content, names of uncalled classes and functions) of a legacy file or plain pickle.

    file: positioned at its start, with `length` bytes; must stay open for lazy tensors.
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
