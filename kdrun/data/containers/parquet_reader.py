"""Images inside Parquet files, read a batch of rows at a time."""

import bisect
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdrun.data.tree import Member, changed_at
from kdrun.errors import DataError, MissingExtraError

BATCH_BYTES = 16 * 2**20
MOST_ROWS = 256
CACHED_BATCHES = 3  # decoder threads ask for neighbouring rows out of order
OPEN_READERS = 3


def import_pyarrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet). Raises MissingExtraError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtraError("pyarrow", "parquet", "dataset=parquet") from None
    return pyarrow, pyarrow.parquet


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The `pyarrow.parquet.ParquetFile` of a file. Raises DataError for a damaged one."""
    arrow, pq = import_pyarrow()
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (arrow.ArrowException, OSError, UnicodeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    try:
        start = path.open("rb").read(64)
    except OSError:
        return DataError(f"{path} cannot be read ({error}): check its permissions.")
    if start.startswith(b"version https://git-lfs"):
        return DataError(f"{path} is a Git LFS pointer: fetch the file with git lfs pull.")
    reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return DataError(f"{path} is not a complete Parquet file ({reason}): get it again.")


class ColumnReader:
    """Reads single values of one column; fast in ascending order, with bounded memory.

    Parquet has no random access to rows: a request before the current position rereads its row
    group from the start. Safe to use from several threads.
    """

    def __init__(self, path: str, column: str) -> None:
        self.file = _open(path)
        self.column = column
        metadata = self.file.metadata
        groups = range(metadata.num_row_groups)
        rows = (metadata.row_group(group).num_rows for group in groups)
        self.starts = list(itertools.accumulate(rows, initial=0))  # of the groups, and the end
        self.rows = batch_rows(metadata, column)
        self.lock = threading.Lock()
        self.cached: deque[tuple[int, Any]] = deque(maxlen=CACHED_BATCHES)  # first row, values
        self.batches: Iterator[Any] = iter(())
        self.position = -1  # next row to read; -1 before the first

    def value(self, row: int) -> Any:
        """The value in row `row` of the file. Raises ValueError if the row is missing."""
        with self.lock:
            for start, values in self.cached:
                if start <= row < start + len(values):
                    return values[row - start].as_py()
            group = bisect.bisect_right(self.starts, row) - 1
            if group == len(self.starts) - 1:
                raise ValueError(f"row {row + 1} is missing; the file has changed")
            if not self.starts[group] <= self.position <= row:
                self._start(group)
            while True:
                batch = next(self.batches, None)
                if batch is None:
                    raise ValueError(f"row {row + 1} is missing; the file has changed")
                start, self.position = self.position, self.position + len(batch)
                if row < self.position:
                    values = batch.column(0)
                    self.cached.append((start, values))
                    return values[row - start].as_py()

    def _start(self, group: int) -> None:
        groups = list(range(group, self.file.metadata.num_row_groups))
        self.batches = self.file.iter_batches(
            batch_size=self.rows, row_groups=groups, columns=[self.column], use_threads=False
        )
        self.position = self.starts[group]


def batch_rows(metadata: Any, column: str) -> int:
    """Number of rows of a column to read at once."""
    size = max(1, column_bytes(metadata, column) // max(1, metadata.num_rows))
    return int(min(MOST_ROWS, max(1, BATCH_BYTES // size)))


def column_bytes(metadata: Any, column: str) -> int:
    """Uncompressed bytes of a column, including nested fields."""
    return sum(
        chunk.total_uncompressed_size
        for _, chunk in column_chunks(metadata)
        if chunk.path_in_schema.split(".")[0] == column
    )


def column_chunks(metadata: Any) -> Iterator[tuple[int, Any]]:
    """(number of rows, metadata) of each column in each row group."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for number in range(group.num_columns):
            yield group.num_rows, group.column(number)


def column_values(file: Any, column: str) -> Iterator[Any]:
    """The values of a column as Python objects, read a batch at a time."""
    for batch in file.iter_batches(columns=[column]):
        yield from batch.column(0).to_pylist()


def _open(path: str) -> Any:
    _, parquet = import_pyarrow()
    return parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)


@lru_cache(maxsize=OPEN_READERS)
def _reader(path: str, column: str, state: int, process: int) -> ColumnReader:
    """state: of the file; a file that is replaced is opened again."""
    return ColumnReader(path, column)


@dataclass(frozen=True, slots=True)
class ParquetImage(Member):
    """The image in one row of a Parquet file: bytes, or a struct with `bytes`."""

    path: str
    column: str
    row: int

    def __str__(self) -> str:
        return f"{self.path}[{self.row}]"

    def read(self) -> bytes:
        """Bytes of the image file. Raises ValueError for a row without an image."""
        state = changed_at(os.stat(self.path))
        value = _reader(self.path, self.column, state, os.getpid()).value(self.row)
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise ValueError("the row has no image")
        return bytes(content)
