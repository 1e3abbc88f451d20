"""PyTorch files since version 1.6: a zip archive with one pickle and a record per storage."""

import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

from kdrun.weights.lazy import UnreadableError
from kdrun.weights.pickles import read_pickle

PICKLE = "data.pkl"
MOST_RECORDS = 200_000
# PyTorch stores uncompressed records, and repacking compresses weights only a little.
MOST_EXPANSION = 30
LEAST_ALLOWED = 2**20  # unpacked bytes that every archive may have


class ArchiveSource:
    """Reads storages from the records of a zip archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, limit: int, big_endian: bool) -> None:
        self.archive = archive
        self.folder = folder
        self.limit = limit
        self.big_endian = big_endian
        self.itemsizes: dict[str, int] = {}

    def expect(self, key: str, itemsize: int) -> None:
        """Remember the element size, for swapping the byte order."""
        self.itemsizes[key] = itemsize

    def read(self, key: str, size: int) -> bytearray:
        """Bytes of a record. Raises UnreadableError unless it has `size` bytes."""
        name = f"{self.folder}data/{key}"
        try:
            actual = self.archive.getinfo(name).file_size
        except KeyError:
            raise UnreadableError(f"its record {name[:60]} is missing") from None
        if actual != size:
            raise UnreadableError(f"its record {name[:60]} has {actual:,} of {size:,} bytes")
        data = bytearray(read_record(self.archive, name, self.limit))
        if self.big_endian:
            width = self.itemsizes.get(key, 1)
            swapped = bytearray(len(data))
            for i in range(width):
                swapped[i::width] = data[width - 1 - i :: width]
            data = swapped
        return data


def read_record(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read a record of at most `limit` bytes and verify its checksum."""
    size = archive.getinfo(name).file_size
    if size > limit:
        raise UnreadableError(f"its record {name[:60]} unpacks to {size:,} bytes")
    try:
        with archive.open(name) as record:
            data = record.read(size + 1)  # never more than its header claims
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise UnreadableError(f"its record {name[:60]} is damaged ({error})") from None
    if len(data) != size:
        raise UnreadableError(f"its record {name[:60]} is damaged")
    return data


def read_archive(path: Path) -> tuple[Any, set[str]]:
    """(content, names of uncalled classes and functions) of a zip archive. Tensors stay lazy."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UnreadableError(f"{error}; it may be truncated") from None
    names = archive.namelist()
    if len(names) > MOST_RECORDS:
        raise UnreadableError(f"it has {len(names):,} records")
    pickles = [name for name in names if name.rpartition("/")[2] == PICKLE]
    if not pickles:
        raise UnreadableError(f"it is an archive of {_contents(names)}, not of weights")
    limit = max(path.stat().st_size * MOST_EXPANSION, LEAST_ALLOWED)
    name = min(pickles, key=len)
    folder = name.removesuffix(PICKLE)
    order = f"{folder}byteorder"
    big = order in names and read_record(archive, order, limit).strip() == b"big"
    source = ArchiveSource(archive, folder, limit, big)
    return read_pickle(BytesIO(read_record(archive, name, limit)), source)


def _contents(names: list[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:3])
    return shown + (", ..." if len(names) > 3 else "") or "nothing"
