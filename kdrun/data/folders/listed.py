"""Splits of one folder per class that lists near the images, or the file names, tell.

`meta/train.txt` and `meta/test.txt` (Food-101), `labels/train1.txt` (DTD), `train_test_split.txt`
with `images.txt` (CUB), `split.json` with `train` and `test`, `cat/train_3.png`.
"""

import json
import os
import re
import shlex
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from kdrun.data.containers.split_columns import SplitEvidence
from kdrun.data.containers.table_columns import ColumnChoice, Format, open_table
from kdrun.data.decoding.formats import image_extensions
from kdrun.data.folders.folder import Folder, Place, shown, unreadable
from kdrun.data.folders.layout import NOT_CLASSES, Layout
from kdrun.data.folders.settings import assignment, setting
from kdrun.data.folders.split_names import SplitName, split_in_file_name, split_name, split_names
from kdrun.data.text import abbreviate
from kdrun.data.tree import FileList
from kdrun.errors import ConfigError, DataError

ENDINGS = (".txt", ".lst", ".csv", ".tsv", ".json")  # in order of preference
TABLES = (".csv", ".tsv")
UNREADABLE = (".mat", ".npy", ".npz", ".pkl")
LARGEST_BYTES = 256 * 2**20
FLAGS = "train_test_split"
SAMPLE = 200  # images whose names are looked at first
# Words that names of lists have besides the split (`trainlist01`, `test_labels`).
OF_LISTS = re.compile(r"lists?|(file)?names?|paths?|labels?|anno(tation)?s?", re.IGNORECASE)
Lists = dict[str, list[str]]  # split → entries


class Images:
    """The images of the training folder, found by the entries of lists."""

    def __init__(self, files: FileList, place: Place, classes: Sequence[str]) -> None:
        self.files = files
        self.place = place
        self.classes = classes

    @cached_property
    def _by_path(self) -> dict[str, int]:
        """Path below the folder, without its extension → row."""
        below = len(self.place.folder.path) + 1
        return {
            os.path.splitext(str(path)[below:])[0]: row for row, path in enumerate(self.files.paths)
        }

    @cached_property
    def _by_name(self) -> dict[str, int | None]:
        """File name without its extension → row; None for several."""
        found: dict[str, int | None] = {}
        for path, row in self._by_path.items():
            name = path.rpartition("/")[2]
            found[name] = None if name in found else row
        return found

    def row(self, entry: str) -> int | None:
        """The image that a line of a list names: its path from any folder, or its name."""
        text = entry.strip().replace("\\", "/")
        for field in dict.fromkeys((text, *re.split(r"[,;\t]", text), *text.split())):
            stem, ending = os.path.splitext(field.strip(" \"'"))
            is_file = ending.lower() in image_extensions()
            parts = (stem if is_file else stem + ending).split("/")
            for start in range(len(parts) - 1):
                if (row := self._by_path.get("/".join(parts[start:]))) is not None:
                    return row
            is_name = is_file or not parts[-1].isdecimal()
            if is_name and (row := self._by_name.get(parts[-1])) is not None:
                return row
        return None

    def are_named(self, entries: Iterable[str]) -> bool:
        """Whether most entries begin with the name of an image, which several may have."""
        names = {re.split(r"[,;\t ]", entry.strip().rpartition("/")[2])[0] for entry in entries}
        known = sum(os.path.splitext(name)[0] in self._by_name for name in names)
        return 2 * known > len(names)

    def rows(self, entries: Iterable[str]) -> set[int]:
        """The images that a list names; empty if they are less than half as many as its lines."""
        entries = list(entries)
        found = {row for entry in entries if (row := self.row(entry)) is not None}
        return found if 2 * len(found) >= len(set(entries)) else set()

    def label_notes(self, entries: Iterable[str], path: Path) -> list[str]:
        """A note if lines of path and number name the classes in another order than the folders.

        Raises DataError if they say that the folders are no classes.
        """
        numbers: dict[int, set[int]] = {}
        for entry in entries:
            fields = re.split(r"[,;\t ]+", entry.strip())
            row = self.row(fields[0]) if len(fields) == 2 and fields[1].isdecimal() else None
            if row is not None:
                numbers.setdefault(self.files.targets[row], set()).add(int(fields[1]))
        several = [target for target, labels in numbers.items() if len(labels) > 1]
        names = self.classes
        if 2 * len(several) > len(numbers):
            first = names[several[0]]
            labels = abbreviate(sorted(numbers[several[0]]))
            raise DataError(
                f"{shown(str(path))} gives the images in {first}/ several labels ({labels}), so "
                "the folders are no classes: dataset=table dataset.header=false "
                f"{assignment('dataset.file', str(path))} "
                f"{assignment('dataset.root', self.place.folder.path)} reads its labels, "
                f"{assignment('dataset.train_folder', self.place.folder.path)} takes the folders."
            )
        if several:
            return [f"{path.name} gives images in {names[several[0]]}/ several labels: not read."]
        order = sorted(numbers, key=lambda target: min(numbers[target]))
        if len(numbers) == len(names) and order != list(range(len(names))):
            return [
                f"{path.name} numbers the classes in another order: {names[order[0]]}, "
                f"{names[order[1]]}, ...: dataset.class_order takes a list or file of names."
            ]
        return []


def chosen_lists(root: Path, chosen: Mapping[str, str]) -> dict[str, Path]:
    """Split → list of its images, of the settings that name a file."""
    paths = {
        split: os.path.join(root, os.path.expanduser(value)) for split, value in chosen.items()
    }
    return {split: Path(path) for split, path in paths.items() if os.path.isfile(path)}


def by_chosen_lists(
    files: FileList, place: Place, classes: Sequence[str], lists: Mapping[str, Path]
) -> tuple[dict[str, FileList], list[str]]:
    """The splits by the lists that the settings name, and notes."""
    images = Images(files, place, classes)
    rows: dict[str, set[int]] = {}
    for split, path in lists.items():
        rows[split] = images.rows(_entries(path))
        if not rows[split]:
            raise ConfigError(
                f"{setting(split, str(path))} lists no images below {place.folder.path}: give a "
                "file with a path like <class>/<image> in each line."
            )
    if "train" not in rows:
        rows["train"] = set(range(len(files))) - set().union(*rows.values())
    return _selected(images, rows, " and ".join(path.name for path in lists.values()))


def by_found_lists(
    files: FileList, layout: Layout, classes: Sequence[str], root: Path
) -> tuple[dict[str, FileList], list[str]]:
    """The splits by the lists near the images, or else by their file names; none without either.

    Raises DataError where these tell the splits, but not in one way.
    """
    place = layout.places["train"]
    images = Images(files, place, classes)
    ignore = f"{setting('train', _relative(place.folder.path, root))} ignores"
    found: dict[str, dict[str, set[int]]] = {"train": {}, "val": {}, "test": {}}
    notes: list[str] = []
    unread: list[Path] = []
    with_images = {folder.path for folder in (*layout.levels, *place.classes.values())}
    for path in _near(layout, root):
        if path.suffix.lower() in UNREADABLE:
            unread += [path] if _split_of(path) is not None else []
            continue
        _refuse_table(path, images, ignore)
        folder = "" if str(path.parent) in with_images else path.parent.name
        for split, entries in _lists(path, folder).items():
            if (named := images.rows(entries)) and _has_counterpart(path, folder):
                notes += images.label_notes(entries, path)
                found[split].setdefault(_relative(str(path), root), named)
            elif named or images.are_named(entries):
                unread.append(path)
    if unread:
        shown_lists = abbreviate([_relative(str(path), root) for path in dict.fromkeys(unread)])
        notes.append(f"These may list images of splits, and are not read: {shown_lists}.")
    listed = {split: _without_both(lists) for split, lists in found.items() if lists}
    whole = set(range(len(files)))
    if "train" in listed and len(listed) == 1 and set().union(*listed["train"].values()) == whole:
        listed = {}
    if not listed:
        splits, more = _by_names(images, ignore) or ({}, [])
        return splits, [*dict.fromkeys(notes), *more]
    if set(listed) == {"train"} or any(len(lists) > 1 for lists in listed.values()):
        typed = " ".join(
            setting(split, min(lists, key=lambda name: (len(name), name)))
            for split, lists in listed.items()
        )
        names = [name for lists in listed.values() for name in lists]
        raise DataError(
            f"{place.folder.path}: {abbreviate(names)} list images of splits: {typed} reads them, "
            f"{ignore} them."
        )
    rows = {split: next(iter(lists.values())) for split, lists in listed.items()}
    if "train" not in rows:
        rows["train"] = whole - set().union(*rows.values())
    names = list(dict.fromkeys(name for lists in listed.values() for name in lists))
    splits, more = _selected(images, rows, " and ".join(names), f"; {ignore} them")
    return splits, [*dict.fromkeys(notes), *more]


def _by_names(images: Images, ignore: str) -> tuple[dict[str, FileList], list[str]] | None:
    """The splits by file names such as `train_3.png`, if these differ within a class."""
    paths, count = images.files.paths, len(images.files)
    sample = [split_in_file_name(str(paths[count * at // SAMPLE])) for at in range(SAMPLE)]
    if 4 * sum(split is not None for split in sample) < 3 * SAMPLE:
        return None
    rows: dict[str, set[int]] = {}
    seen: dict[int, set[str]] = {}
    for row, path in enumerate(paths):
        if (split := split_in_file_name(str(path))) is not None:
            rows.setdefault(split, set()).add(row)
            seen.setdefault(images.files.targets[row], set()).add(split)
    if "train" not in rows or max(map(len, seen.values())) < 2:
        return None
    if sum(map(len, rows.values())) < count:
        example = shown(str(paths[min(rows["train"])]))
        raise DataError(
            f"{images.place.folder.path}: the names of most images tell their splits ({example}), "
            f"but not of all: move them to train/<class> and test/<class>; {ignore} the names."
        )
    return _selected(images, rows, "the file names", f"; {ignore} them")


def _selected(
    images: Images, rows: Mapping[str, set[int]], source: str, end: str = ""
) -> tuple[dict[str, FileList], list[str]]:
    """The images of each split. Raises DataError for splits that overlap or lack a class."""
    order = [split for split in ("train", "val", "test") if rows.get(split)]
    where = f"{images.place.folder.path}: by {source}, "
    for split in order:
        for other in order[order.index(split) + 1 :]:
            if both := rows[split] & rows[other]:
                example = shown(str(images.files.paths[min(both)]))
                raise DataError(
                    f"{where}{len(both):,} images are in the {split} and the {other} split, e.g. "
                    f"{example}: correct the lists{end}."
                )
    lacking = set(images.files.targets) - {images.files.targets[row] for row in rows["train"]}
    if lacking:
        raise DataError(
            f"{where}{len(lacking)} of {len(images.classes)} classes have no training images "
            f"({abbreviate([images.classes[number] for number in sorted(lacking)])}){end}."
        )
    splits = {split: images.files.select(sorted(rows[split])) for split in order}
    notes = [f"Splits from {source}{end}."]
    unused = len(images.files) - sum(map(len, splits.values()))
    if unused:
        notes.append(f"{unused:,} images are in none of these splits: not used.")
    if "test" not in splits and "val" in splits:
        splits["test"] = splits.pop("val")
        notes.append("No test split: the validation split is used for testing.")
    return splits, notes


def _near(layout: Layout, root: Path) -> list[Path]:
    """Files in the folders above the classes, and in folders without images next to these."""
    folders = list(layout.levels)
    if root.name.lower() in NOT_CLASSES:  # `images`, where the lists lie next to it
        folders.append(Folder(str(root.parent), folders[0].links))
    empty = [f for level in folders for f in level.listing.folders if not f.has_images]
    inner = [f for folder in empty for f in folder.listing.folders]
    classes = list(layout.places["train"].classes.values())
    places = dict.fromkeys(folder.path for folder in (*folders, *empty, *inner, *classes))
    preferred = {ending: rank for rank, ending in enumerate((*ENDINGS, *UNREADABLE))}
    paths = [path for place in places for path in _files_ending(place, preferred)]
    return sorted(paths, key=lambda path: preferred[path.suffix])


def _files_ending(folder: str, endings: Container[str]) -> list[Path]:
    """The files in a folder that may be lists by extension and size, sorted by name.

    Class folders may have a million images: each is scanned once.
    """
    with os.scandir(folder) as entries:
        return sorted(
            Path(entry.path)
            for entry in entries
            if os.path.splitext(entry.name)[1] in endings
            and entry.is_file()
            and entry.stat().st_size <= LARGEST_BYTES
        )


def _has_counterpart(path: Path, folder: str) -> bool:
    """Whether `birds_test.txt` has a `birds_train.txt`, unlike `test_results.txt`; train.txt has.

    folder: see `_lists`.
    """
    if path.suffix.lower() == ".json" or _split_of(path) or split_names([folder]):
        return True
    names = [OF_LISTS.sub(" ", other.stem) for other in path.parent.glob(f"*{path.suffix}")]
    return path.stem == FLAGS or OF_LISTS.sub(" ", path.stem) in split_names(names)


def _split_of(path: Path) -> SplitName | None:
    """The split that the name of a list means."""
    match = split_name(OF_LISTS.sub(" ", path.stem))
    return match if match is not None and match.plain else None


def _lists(path: Path, folder: str) -> Lists:
    """Split → entries of the lists in a file that names splits; folder: its name, if it may too."""
    if path.stem == FLAGS:
        return _flagged(path)
    match = _split_of(path)
    if match is not None:
        return {match.split: list(_entries(path))}
    parts = [split_name(part) for part in (path.stem, folder)]
    inner = next((part.split for part in parts if part is not None), None)
    if inner is not None and path.suffix.lower() != ".json":
        return {inner: list(_entries(path))}  # cat_train.txt, train/cat.txt
    content = _json(path) if path.suffix.lower() == ".json" else None
    lists: Lists = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if (match := split_name(key)) is not None and match.plain:
            lists.setdefault(match.split, []).extend(_texts(value))
    return lists


def _entries(path: Path) -> Iterator[str]:
    """The lines of a list, or the texts in a JSON file."""
    if path.suffix.lower() == ".json":
        yield from _texts(_json(path))
        return
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise unreadable(str(path), error) from None
    yield from (line for line in text.splitlines() if line.strip())


def _flagged(path: Path) -> Lists:
    """`7 1` in train_test_split.txt and `7 class/image.jpg` in images.txt: a training image."""
    names = path.with_name("images.txt")
    if not names.is_file():
        return {}
    image = dict(line.split(maxsplit=1) for line in _entries(names) if " " in line.strip())
    lists: Lists = {"train": [], "test": []}
    for line in _entries(path):
        number, _, flag = line.strip().partition(" ")
        if number in image and flag in ("0", "1"):
            lists["train" if flag == "1" else "test"].append(image[number])
    return lists


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError):
        return None


def _texts(value: Any) -> Iterator[str]:
    """All texts with a folder or an extension in a JSON value."""
    if isinstance(value, str):
        if "/" in value or "." in value:
            yield value
    elif isinstance(value, dict | list):
        for member in value.values() if isinstance(value, dict) else value:
            yield from _texts(member)


def _refuse_table(path: Path, images: Images, ignore: str) -> None:
    """Raise DataError for a table of these images with a column of splits."""
    if path.suffix.lower() not in TABLES or _split_of(path) is not None:
        return
    try:
        columns, rows = open_table(path, Format(), ColumnChoice())
        if columns.split is None:
            return
        evidence, found = SplitEvidence(columns.names[columns.split]), 0
        for _, fields in rows:
            evidence.add(fields[columns.split])
            found += images.row(fields[columns.path]) is not None
    except (ConfigError, DataError):
        return
    if evidence.tells and 2 * found >= evidence.rows:
        table = assignment("dataset.file", str(path))
        raise DataError(
            f"{shown(str(path))} tells the splits of these images: dataset=table {table} "
            f"{shlex.quote(f'dataset.root={images.place.folder.path}')} reads it, {ignore} it."
        )


def _without_both(lists: dict[str, set[int]]) -> dict[str, set[int]]:
    """Without trainval where there is train, and without the same list in another format."""
    plain = {name: rows for name, rows in lists.items() if "trainval" not in name.lower()}
    stems = {os.path.splitext(name)[0]: name for name in reversed(plain or lists)}
    return {name: lists[name] for name in reversed(stems.values())}


def _relative(path: str, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")
