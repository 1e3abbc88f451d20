"""The column of Parquet files that holds the split of each row."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdrun.data.containers.parquet_reader import opened
from kdrun.data.containers.shards import Shards
from kdrun.data.containers.split_values import SplitValues
from kdrun.data.containers.table_columns import flag_splits, names_splits
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, DataError, did_you_mean

IGNORE = "dataset.split_column=false to ignore it"


def find_split_column(shards: Shards, chosen: str | bool | None) -> str | None:
    """The column of splits; None if there is none, or if the files' names tell the splits.

    chosen: `dataset.split_column`. Unless it is set, a column counts if every value names a split,
    and one of several is train, or if it is named like a split and holds yes and no. Raises
    DataError for such a column with an unusual name, ConfigError for a column that is not there or
    not needed.
    """
    if set(shards.splits) != {"train"}:
        if isinstance(chosen, str):
            raise ConfigError(
                f"dataset.split_column={chosen}: the names of the files already tell their splits: "
                "leave it out, or list all files in dataset.train."
            )
        return None
    files = shards.splits["train"]
    if isinstance(chosen, str):
        with opened(files[0]) as file:
            names = file.schema_arrow.names
        if chosen not in names:
            raise ConfigError(
                f"dataset.split_column={chosen}: {files[0]} has no such column."
                f"{did_you_mean(chosen, names)} It has: {abbreviate(names, 12)}."
            )
        return chosen
    found = [] if chosen is False else _columns_of_splits(files)
    usual = [name for name in found if names_splits(name)]
    if found and len(usual) != 1:
        options = " or ".join(shlex.quote(f"dataset.split_column={name}") for name in found[:5])
        raise DataError(
            f"{files[0]}: column {found[0]!r} tells the split of every row: set {options} to read "
            f"it, or {IGNORE}."
        )
    return usual[0] if usual else None


def _columns_of_splits(files: list[Path]) -> list[str]:
    """Columns in which every value names a split, and train is one of several."""
    found: dict[str, set[str]] | None = None
    for path in files:
        with opened(path) as file:
            names = [
                field.name
                for field in file.schema_arrow
                if _is_text(field.type) or (flag_splits(field.name) and _is_whole(field.type))
            ]
            here = {
                name: _splits_in(file, name) for name in names if found is None or name in found
            }
        found = {
            name: splits | (found or {}).get(name, set())
            for name, splits in here.items()
            if splits is not None
        }
    return [
        name for name, splits in (found or {}).items() if "train" in splits and splits != {"train"}
    ]


def _is_text(kind: Any) -> bool:
    return re.match(r"(dictionary<values=)?(large_)?string", str(kind)) is not None


def _is_whole(kind: Any) -> bool:
    return re.fullmatch(r"bool|u?int\d+", str(kind)) is not None


def _splits_in(file: Any, column: str) -> set[str] | None:
    """The splits that a column names; None at the first value that names none."""
    values = SplitValues(column, flagged=flag_splits(column))
    splits = set()
    for value in _values(file, column):
        split = None if value is None else values.find(str(value))
        if split is None:
            return None
        splits.add(split)
    return splits


def split_of_rows(file: Any, column: str, path: Path) -> Iterator[str]:
    """The split of each row. Raises DataError for a value that names none."""
    values = SplitValues(column, flagged=flag_splits(column))
    for row, value in enumerate(_values(file, column), 1):
        split = values.find(str(value))
        if split is None:
            raise DataError(
                f"{path}, row {row}: {value!r} in column {column!r} names no split: write train, "
                f"val or test, or set {IGNORE}."
            )
        yield split


def _values(file: Any, column: str) -> Iterator[Any]:
    for batch in file.iter_batches(columns=[column]):
        yield from batch.column(0).to_pylist()
