"""A teacher's outputs on disk: one file of fixed-size records, one for each image and view.

Several processes may read and write it at once, and any of them may be killed, or the machine lose
power, at any moment. A record is its values and their checksum. It is valid only when the two fit,
so a record that was never written (zeros), half written, or written by two processes at once reads
as absent, and whoever needs it computes it again. Nothing relies on the order in which a disk or a
processor makes writes visible.

Records are written with `pwrite`, so that a full disk is an error that can be answered and not a
fatal signal; they are read through a shared mapping of the same file.
"""

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kdrun.files import make_folder

CHECKSUM_BYTES = 8
NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # records are never written into a file elsewhere
Rows = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]


class CacheFile:
    """`count` records of `width` values of `dtype`, numbered from 0.

    The file grows when more records are asked for than it has, and takes only the disk space that
    was written to, where the file system knows sparse files.
    Raises OSError when the file cannot be made.
    """

    def __init__(self, path: Path, count: int, width: int, dtype: str) -> None:
        self.path = path
        self.count = count
        self.width = width
        self.dtype = np.dtype(dtype)
        self.value_bytes = width * self.dtype.itemsize
        self.record_bytes = record_bytes(width, dtype)
        make_folder(path.parent)
        number = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINK, 0o666)
        self._file = os.fdopen(number, "r+b", buffering=0)  # is closed when nobody needs it
        size = count * self.record_bytes
        if os.fstat(number).st_size < size:
            os.ftruncate(number, size)  # only ever grows: two processes may do it at once
        self._map = mmap.mmap(number, size, access=mmap.ACCESS_READ)
        flat = np.frombuffer(self._map, dtype=np.uint8)
        self._records = flat.reshape(count, self.record_bytes)
        words = (self.record_bytes - CHECKSUM_BYTES) // 8
        self._factors = _factors(words)

    def read(self, slots: npt.NDArray[np.int64]) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """(values `[n, width]`, which of them are valid `[n]`) of the records `slots` `[n]`."""
        records = self._records[slots]  # a copy: what is checked is what is used
        payload, stored = records[:, :-CHECKSUM_BYTES], records[:, -CHECKSUM_BYTES:]
        valid = self._checksum(payload) == stored.copy().view(np.uint64)[:, 0]
        values = payload[:, : self.value_bytes].copy().view(self.dtype)
        return values, valid

    def write(self, slots: npt.NDArray[np.int64], values: Rows) -> None:
        """Store `values` `[n, width]`. Raises OSError (a full disk, for one)."""
        records = np.zeros((len(slots), self.record_bytes), dtype=np.uint8)
        raw = np.ascontiguousarray(values, dtype=self.dtype).view(np.uint8)
        records[:, : self.value_bytes] = raw.reshape(len(slots), self.value_bytes)
        payload = records[:, :-CHECKSUM_BYTES]
        records[:, -CHECKSUM_BYTES:] = self._checksum(payload)[:, None].view(np.uint8)
        for slot, record in zip(slots.tolist(), records, strict=True):
            os.pwrite(self._file.fileno(), record.tobytes(), slot * self.record_bytes)

    def _checksum(self, payload: npt.NDArray[np.uint8]) -> Words:
        """Of `[n, bytes]`: a sum of the words times odd constants, modulo 2⁶⁴, never that of zeros.

        A sum of products changes with any one word; that a mixture of two states of a record fits
        by chance has a probability of about 2⁻⁶⁴.
        """
        words = np.ascontiguousarray(payload).view(np.uint64)
        mixed = words ^ (words >> np.uint64(29))
        total = (mixed * self._factors).sum(axis=1, dtype=np.uint64)
        found: Words = total ^ (total >> np.uint64(32)) ^ np.uint64(0x9E3779B97F4A7C15)
        return found

    def close(self) -> None:
        """Release the file. The mapping lives until nobody holds an array of it."""
        del self._records
        self._file.close()


def record_bytes(width: int, dtype: str) -> int:
    """Bytes of one record: its values, filled up to whole words, and the checksum."""
    return -(-width * np.dtype(dtype).itemsize // 8) * 8 + CHECKSUM_BYTES


def _factors(words: int) -> Words:
    """Odd 64-bit constants, the same on every machine (splitmix64 of the position)."""
    state = (np.arange(1, words + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Words = (state ^ (state >> np.uint64(31))) | np.uint64(1)
    return found
