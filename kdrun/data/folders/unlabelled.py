"""The error for a folder of images without class folders: read the labels from a table."""

import os
import re
import shlex
from collections import Counter
from dataclasses import dataclass

from kdrun.data.class_order import natural
from kdrun.data.folders.folder import Folder, shown
from kdrun.data.folders.split_names import SPLIT_OF
from kdrun.data.text import abbreviate
from kdrun.errors import DataError

TABLES = (".csv", ".tsv")
MIN_MATCHING = 0.8  # share of the names that must follow one pattern


@dataclass(frozen=True)
class Naming:
    """A pattern of file names, for Python and for `sed -E`.

    label, split: numbers of the groups that hold them; 0: none.
    """

    python: re.Pattern[str]
    sed: str
    label: int = 1
    split: int = 0


NUMBERED = r"[ _.-]*\(?[0-9]+\)?\.[^.]+"
NAMINGS = (
    *(  # train_cat_001.jpg, cat-train-1.jpg
        Naming(re.compile(pattern), f"^{pattern}$", label, split)
        for pattern, label, split in (
            (rf"([A-Za-z]+)[ _.-]+(.*[^0-9 _(.-]){NUMBERED}", 2, 1),
            (rf"(.*[^0-9 _(.-])[ _.-]+([A-Za-z]+){NUMBERED}", 1, 2),
        )
    ),
    Naming(re.compile(r"([^.]+)\.[0-9]+\.[^.]+"), r"^([^.]+)\.[0-9]+\.[^.]+$"),  # cat.0.jpg
    Naming(  # cat_001.jpg, cat-1.jpg, cat (1).jpg, cat12.jpg
        re.compile(r"(.*[^0-9 _(.-])[ _.-]*\(?[0-9]+\)?\.[^.]+"),
        r"^(.*[^0-9 _(.-])[ _.-]*\(?[0-9]+\)?\.[^.]+$",
    ),
)


def no_class_folders(folder: Folder) -> DataError:
    """The error for images without class folders, with a command that reads them."""
    names = folder.listing.images
    place = shown(folder.path)
    start = f"{place} contains {folder.count()} and no class folders"
    likely, unlikely = _nearby_tables(folder.path)
    labelled = next((naming for naming in NAMINGS if _labels(names, naming)), None)
    table = next(iter(likely if labelled is not None else [*likely, *unlikely]), None)
    if table is not None:
        return DataError(
            f"{start}: if {shown(table)} lists their labels, use {_command(table, folder.path)}."
        )
    if labelled is not None:
        labels = _labels(names, labelled)
        return DataError(
            f"{start}, but names like {_examples(names, labelled, labels)}: write the labels into "
            f"a table, {_recipe(folder.path, labelled)}, and use "
            f"{_command('labels.csv', folder.path)}{_format_excluded(names, labels)}."
        )
    return DataError(
        f"{start}: put the images of each class into a separate folder "
        f"({place}/<class>/<image>), or list them in a table of paths and labels and use "
        f"{_command('labels.csv', folder.path)}."
    )


def _labels(names: list[str], naming: Naming) -> Counter[str]:
    """Label → number of images, if nearly all names follow the pattern; empty otherwise."""
    matches = [match for name in names if (match := naming.python.fullmatch(name)) is not None]
    if naming.split:
        matches = [match for match in matches if match[naming.split].lower() in SPLIT_OF]
        if len({SPLIT_OF[match[naming.split].lower()] for match in matches}) < 2:
            return Counter()
    labels = Counter(match[naming.label] for match in matches)
    fits = labels.total() >= MIN_MATCHING * len(names) and len(labels) >= 2
    return labels if fits and labels.total() >= 2 * len(labels) else Counter()


def _examples(names: list[str], naming: Naming, labels: Counter[str]) -> str:
    """An example of a file name and its label, and all labels."""
    name, label = next(
        (name, match[naming.label])
        for name in names
        if (match := naming.python.fullmatch(name)) is not None
    )
    return f"{name!r} (label {label!r}, of {abbreviate(sorted(labels, key=natural), 4)})"


def _recipe(folder: str, naming: Naming) -> str:
    """A shell command that writes the table."""
    fields = f'"&","\\{naming.label}"' + (f',"\\{naming.split}"' if naming.split else "")
    listed = f"ls {shlex.quote(folder)} | sed -nE 's/{naming.sed}/{fields}/p'"
    return f"(echo path,label{',split' if naming.split else ''}; {listed}) > labels.csv"


def _command(table: str, folder: str) -> str:
    arguments = ["dataset=table", f"dataset.file={table}", f"dataset.root={folder}"]
    return shlex.join(arguments)


def _format_excluded(names: list[str], labels: Counter[str]) -> str:
    excluded = len(names) - labels.total()
    return f"; {excluded:,} other names would be left out" if excluded else ""


def _nearby_tables(folder: str) -> tuple[list[str], list[str]]:
    """Tables in the folder or its parent: (likely to list the images, unlikely)."""
    parent, name = os.path.split(folder)
    likely: list[str] = []
    unlikely: list[str] = []
    for place in (folder, parent):
        try:
            entries = sorted(os.listdir(place))
        except OSError:
            continue
        for table in (entry for entry in entries if entry.lower().endswith(TABLES)):
            fits = place == folder or name.lower() in table.lower() or "label" in table.lower()
            (likely if fits else unlikely).append(os.path.join(place, table))
    likely.sort(key=lambda path: name.lower() not in os.path.basename(path).lower())
    return likely, unlikely
