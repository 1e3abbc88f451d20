"""The answer to a folder of images without class folders: read the labels from a table."""

import os
import re
import shlex
from collections import Counter
from dataclasses import dataclass

from kdrun.data.class_order import abbreviated, natural
from kdrun.data.folders.folder import Folder, shown
from kdrun.errors import DataError

TABLES = (".csv", ".tsv")
ENOUGH = 0.8  # of the names must follow one pattern


@dataclass(frozen=True)
class Naming:
    """How file names hold a label: for Python (group 1) and for `sed -E` (also group 1)."""

    python: re.Pattern[str]
    sed: str


NAMINGS = (
    Naming(re.compile(r"([^.]+)\.[0-9]+\.[^.]+"), r"^([^.]+)\.[0-9]+\.[^.]+$"),  # cat.0.jpg
    Naming(  # cat_001.jpg, cat-1.jpg, cat (1).jpg, cat12.jpg
        re.compile(r"(.*[^0-9 _(.-])[ _.-]*\(?[0-9]+\)?\.[^.]+"),
        r"^(.*[^0-9 _(.-])[ _.-]*\(?[0-9]+\)?\.[^.]+$",
    ),
)


def no_class_folders(folder: Folder) -> DataError:
    """The error for images that no folder gives a class, with the command that reads them."""
    names = [entry.name for entry in folder.listing.images]
    place = shown(folder.path)
    start = f"{place} holds {folder.count()} and no class folders"
    likely, tables = _tables_beside(folder.path)
    labelled = next((naming for naming in NAMINGS if _labels(names, naming)), None)
    table = next(iter(likely if labelled is not None else [*likely, *tables]), None)
    if table is not None:
        return DataError(
            f"{start}: if {shown(table)} lists their labels, use {_command(table, folder.path)}."
        )
    if labelled is not None:
        labels = _labels(names, labelled)
        return DataError(
            f"{start}, but names like {_examples(names, labelled, labels)}: write the labels into "
            f"a table, {_recipe(folder.path, labelled)}, and use "
            f"{_command('labels.csv', folder.path)}{_rest(names, labels)}."
        )
    return DataError(
        f"{start}: put the images of each class into a folder of its own "
        f"({place}/<class>/<image>), or list them in a table of paths and labels and use "
        f"{_command('labels.csv', folder.path)}."
    )


def _labels(names: list[str], naming: Naming) -> Counter[str]:
    """Label → images, where nearly all names follow the pattern; empty otherwise."""
    found = (naming.python.fullmatch(name) for name in names)
    labels = Counter(match[1] for match in found if match is not None)
    fits = labels.total() >= ENOUGH * len(names) and len(labels) >= 2
    return labels if fits and labels.total() >= 2 * len(labels) else Counter()


def _examples(names: list[str], naming: Naming, labels: Counter[str]) -> str:
    """A file name and its label; and all labels."""
    name, label = next(
        (name, match[1]) for name in names if (match := naming.python.fullmatch(name)) is not None
    )
    return f"{name!r} (label {label!r}, of {abbreviated(sorted(labels, key=natural), 4)})"


def _recipe(folder: str, naming: Naming) -> str:
    """A shell command that writes the table."""
    listed = f'ls {shlex.quote(folder)} | sed -nE \'s/{naming.sed}/"&","\\1"/p\''
    return f"(echo path,label; {listed}) > labels.csv"


def _command(table: str, folder: str) -> str:
    words = ["dataset=table", f"dataset.file={table}", f"dataset.root={folder}"]
    return " ".join(shlex.quote(word) for word in words)


def _rest(names: list[str], labels: Counter[str]) -> str:
    left = len(names) - labels.total()
    return f"; {left:,} other names would be left out" if left else ""


def _tables_beside(folder: str) -> tuple[list[str], list[str]]:
    """Tables in the folder or in the one above it: those that seem to list it, and the others."""
    parent, name = os.path.split(folder)
    likely: list[str] = []
    others: list[str] = []
    for place in (folder, parent):
        try:
            entries = sorted(os.listdir(place))
        except OSError:
            continue
        for one in (entry for entry in entries if entry.lower().endswith(TABLES)):
            fits = place == folder or name.lower() in one.lower() or "label" in one.lower()
            (likely if fits else others).append(os.path.join(place, one))
    likely.sort(key=lambda path: name.lower() not in os.path.basename(path).lower())
    return likely, others
