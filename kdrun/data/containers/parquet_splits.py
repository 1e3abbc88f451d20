"""The column of Parquet files that holds the split of each row."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdrun.data.containers.parquet_reader import column_values, opened
from kdrun.data.containers.shards import Shards
from kdrun.data.containers.split_columns import (
    SplitEvidence,
    SplitValues,
    flag_splits,
    is_split_name,
    is_surely_split_name,
)
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, DataError, did_you_mean

IGNORE = "dataset.split_column=false to ignore it"


def find_split_column(shards: Shards, chosen: str | bool | None) -> str | None:
    """The column of splits; None if there is none, or if the files' names tell the splits.

    chosen: `dataset.split_column`. Unless it is set, a column counts that tells the splits (see
    `SplitEvidence`) or is called `split`. Raises DataError for such a column with an unusual name,
    ConfigError for a column that is not there or not needed.
    """
    if shards.tell_splits("dataset.split_column", chosen, "files"):
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
    usual = [name for name in found if is_split_name(name)]
    if found and len(usual) != 1:
        options = " or ".join(shlex.quote(f"dataset.split_column={name}") for name in found[:5])
        raise DataError(
            f"{files[0]}: column {found[0]!r} tells the splits: set {options} to read it, or "
            f"{IGNORE}."
        )
    return usual[0] if usual else None


def _columns_of_splits(files: list[Path]) -> list[str]:
    """The columns of all files that must be read; see `SplitEvidence.must_be_read`."""
    found: dict[str, SplitEvidence] = {}
    for number, path in enumerate(files):
        with opened(path) as file:
            names = [field.name for field in file.schema_arrow if _may_tell(field.name, field.type)]
            if number == 0:
                found = {name: SplitEvidence(name) for name in names}
            found = {name: evidence for name, evidence in found.items() if name in names}
            for name, evidence in list(found.items()):
                for value in column_values(file, name):
                    evidence.add(value)
                    if not evidence.is_possible:
                        del found[name]
                        break
    return [name for name, evidence in found.items() if evidence.must_be_read]


def _may_tell(name: str, kind: Any) -> bool:
    """Whether a column holds text, or numbers under a name like `split` or `is_train`."""
    if re.match(r"(dictionary<values=)?(large_)?string", str(kind)):
        return True
    numbers = re.fullmatch(r"bool|u?int\d+|float|double|halffloat", str(kind)) is not None
    return numbers and (is_surely_split_name(name) or flag_splits(name) is not None)


def split_of_rows(file: Any, column: str, path: Path) -> Iterator[str]:
    """The split of each row. Raises DataError for a value that names none."""
    values = SplitValues(column)
    for row, value in enumerate(column_values(file, column), 1):
        split = values.find(value)
        if split is None:
            raise DataError(
                f"{path}, row {row}: {value!r} in column {column!r} names no split: write train, "
                f"val or test, or set {IGNORE}."
            )
        yield split
