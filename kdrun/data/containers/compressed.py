"""Compressed tar shards, read sequentially: `.tar.gz`, `.tar.bz2`, `.tar.xz`."""

import bz2
import gzip
import lzma
import os
import threading
from functools import lru_cache
from pathlib import Path

from kdrun.data.tree import changed_at

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
Opener = type[gzip.GzipFile] | type[bz2.BZ2File] | type[lzma.LZMAFile]
OPENERS: dict[bytes, Opener] = {  # first bytes of a file → how to open it
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
CHUNK_BYTES = 2**20
WINDOW_BYTES = 32 * 2**20  # decoder threads ask for neighbouring images out of order
OPEN_READERS = 3


def is_compressed(path: str | Path) -> bool:
    """Whether a file starts like one of the supported compressed formats."""
    return _opener(str(path)) is not None


def _opener(path: str) -> Opener | None:
    with open(path, "rb") as file:
        start = file.read(8)
    return next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)


class SequentialReader:
    """Reads parts of a compressed file; fast in ascending order.

    Keeps the last WINDOW_BYTES of unpacked data. A request before them decompresses the file from
    its beginning again. Safe to use from several threads.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        opener = _opener(self.path)
        if opener is None:
            raise ValueError("the shard has changed: it is no longer compressed")
        self._file = opener(self.path)
        self._window = bytearray()
        self._first = 0  # offset of the window's first byte

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset` of the unpacked file, fewer if it ends before."""
        with self._lock:
            if offset < self._first:
                self._file.close()
                self._start()
            while self._first + len(self._window) < offset + size:
                chunk = self._file.read(CHUNK_BYTES)
                if not chunk:
                    break
                self._window += chunk
                surplus = min(len(self._window) - WINDOW_BYTES, offset - self._first)
                if surplus > 0:
                    del self._window[:surplus]
                    self._first += surplus
            start = offset - self._first
            return bytes(self._window[start : start + size])


@lru_cache(maxsize=OPEN_READERS)
def _reader(path: str, state: int, process: int) -> SequentialReader:
    """state: of the file; a file that is replaced is opened again."""
    return SequentialReader(path)


def read_part(path: str, offset: int, size: int) -> bytes:
    """`size` bytes at `offset` of the unpacked file `path`, from a reader that stays open."""
    return _reader(path, changed_at(os.stat(path)), os.getpid()).read(offset, size)
