"""Images inside Parquet files, read a batch of rows at a time."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kdrun.data.tree import Member
from kdrun.errors import MissingExtraError

BATCH_BYTES = 16 * 2**20
MOST_ROWS = 256
KEPT_BATCHES = 3  # threads that decode a block ask for neighbouring rows out of order
OPEN_READERS = 3


def import_pyarrow() -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet); MissingExtraError without them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingExtraError("pyarrow", "parquet", "dataset=parquet") from None
    return pyarrow, pyarrow.parquet


class ColumnReader:
    """Reads single values of one column; quick in rising order, and never a whole file in memory.

    Parquet has no access to single rows: a value before the current position starts its row group
    again.
    """

    def __init__(self, path: str, column: str) -> None:
        self.file = _open(path)
        self.column = column
        metadata = self.file.metadata
        self.starts = [0]
        for group in range(metadata.num_row_groups):
            self.starts.append(self.starts[-1] + metadata.row_group(group).num_rows)
        self.rows = batch_rows(metadata, column)
        self.lock = threading.Lock()
        self.kept: OrderedDict[int, Any] = OrderedDict()  # first row → values
        self.batches: Iterator[Any] = iter(())
        self.position = -1  # the row after those that were read; -1: nothing is open

    def value(self, row: int) -> Any:
        """The value in a row, counted over the whole file."""
        with self.lock:
            for start, values in self.kept.items():
                if start <= row < start + len(values):
                    return values[row - start].as_py()
            group = self._group(row)
            if not self.starts[group] <= self.position <= row:
                self._start(group)
            while True:
                batch = next(self.batches, None)
                if batch is None:
                    raise ValueError(f"row {row + 1} is missing; the file has changed")
                start, self.position = self.position, self.position + len(batch)
                if row < self.position:
                    values = batch.column(0)
                    self.kept[start] = values
                    while len(self.kept) > KEPT_BATCHES:
                        self.kept.popitem(last=False)
                    return values[row - start].as_py()

    def _group(self, row: int) -> int:
        for group, end in enumerate(self.starts[1:]):
            if row < end:
                return group
        raise ValueError(f"row {row + 1} is missing; the file has changed")

    def _start(self, group: int) -> None:
        groups = list(range(group, self.file.metadata.num_row_groups))
        self.batches = self.file.iter_batches(
            batch_size=self.rows, row_groups=groups, columns=[self.column], use_threads=False
        )
        self.position = self.starts[group]


def batch_rows(metadata: Any, column: str) -> int:
    """How many rows of a column to read at once."""
    size = max(1, column_bytes(metadata, column) // max(1, metadata.num_rows))
    return int(min(MOST_ROWS, max(1, BATCH_BYTES // size)))


def column_bytes(metadata: Any, column: str) -> int:
    """Bytes of a column, and what it holds, in the file."""
    total = 0
    for group in range(metadata.num_row_groups):
        columns = metadata.row_group(group)
        for at in range(columns.num_columns):
            chunk = columns.column(at)
            if chunk.path_in_schema.split(".")[0] == column:
                total += chunk.total_uncompressed_size
    return total


def _open(path: str) -> Any:
    _, parquet = import_pyarrow()
    return parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)


@lru_cache(maxsize=OPEN_READERS)
def _reader(path: str, column: str, process: int) -> ColumnReader:
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
        """The bytes; ValueError for a row without an image."""
        value = _reader(self.path, self.column, os.getpid()).value(self.row)
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content:
            raise ValueError("the row has no image")
        return bytes(content)
