"""Turn the images and labels that a table or container lists into a `Tree`."""

import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from kdrun.config.readers import LEXICOGRAPHIC, without_numbers
from kdrun.data.class_order import NATURAL, ClassOrder, in_class_order, natural, order_note
from kdrun.data.containers.table_columns import heads_classes
from kdrun.data.folders.split_names import split_in_file_name, split_name
from kdrun.data.spelling import refuse_two_forms, spelling_notes
from kdrun.data.text import abbreviate
from kdrun.data.tree import FileList, Member, Source, Tree
from kdrun.errors import ConfigError, DataError

NUMBER = re.compile(r"[+-]?\d+(\.0+)?")
CLASS_FILES = ("classes", "class_names", "classnames", "labels", "label_names")
JOINTS = re.compile(r"[|;,+ ]+")  # between several labels of one image
LARGEST_CLASS_FILE = 16 * 2**20
# What programs write for a missing label; `none` and `na` may as well be classes among other words.
MAYBE_NO_LABEL = {"na", "none"}
NO_LABEL = {"nan", "n/a", "#n/a", "<na>", "null", "?", "-"} | MAYBE_NO_LABEL


@dataclass
class Listing:
    """The images of one split in order, with their labels as text.

    sizes: bytes of each image. times: `changed_at` of its file or container.
    """

    sources: list[Source] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, source: Source, label: str, size: int, time: int) -> None:
        """Append one image."""
        self.sources.append(source)
        self.labels.append(label)
        self.sizes.append(size)
        self.times.append(time)


def split_by_folders(listings: dict[str, Listing], base: Path) -> str:
    """Move images to the splits that the folders in their paths or their own names tell.

    `train/cat/0.png`, `test/dog/1.png`, or `train_0.png`, `test_1.png`: in a table, Parquet paths,
    or members of tar files. Returns a note, or "" where nothing tells the splits: all paths must,
    and some images be for training, and some not. File names must differ so within a class.
    """
    rows = listings["train"]
    if len(rows) == 0 or any(len(rows) for split, rows in listings.items() if split != "train"):
        return ""
    what = "the folders in the paths"
    found = _told(_folder_split(source, base) for source in rows.sources)
    if not found:
        what = "the file names"
        found = _told(split_in_file_name(_path(source)) for source in rows.sources)
        if len(set(zip(rows.labels, found, strict=False))) == len(set(rows.labels)):
            return ""
    if not found:
        return ""
    listings["train"] = Listing()
    for at, split in enumerate(found):
        listings[split].add(rows.sources[at], rows.labels[at], rows.sizes[at], rows.times[at])
    return f"{base.name}: splits from {what} of the images."


def _told(splits: Iterable[str | None]) -> list[str]:
    """The splits, if there is one for each image and train is one of several; else none."""
    found = []
    for split in splits:
        if split is None:
            return []
        found.append(split)
    return found if "train" in found and len(set(found)) > 1 else []


def _path(source: Source) -> str:
    return str(getattr(source, "name", "")) if isinstance(source, Member) else str(source)


def _folder_split(source: Source, base: Path) -> str | None:
    """The split that the first of the folders names that name one."""
    folders = _path(source).removeprefix(f"{base}/").split("/")[:-1]
    return next(filter(None, map(_plain_split, folders)), None)


@lru_cache(maxsize=1024)  # the same few folders, for every image
def _plain_split(folder: str) -> str | None:
    match = split_name(folder)
    return match.split if match is not None and match.plain else None


def select_splits(listings: dict[str, Listing], what: str) -> tuple[dict[str, Listing], list[str]]:
    """The non-empty splits in the order train, val, test, and notes.

    A validation split without a test split becomes the test split, as in an image folder.
    Raises DataError without training images.
    """
    present = {name: rows for name, rows in listings.items() if len(rows)}
    notes = []
    if "train" not in present:
        splits = ", ".join(sorted(present)) or "nothing"
        raise DataError(f"{what} has no training images (it has {splits}).")
    if "val" in present and "test" not in present:
        present["test"] = present.pop("val")
        notes.append(f"{what} has no test split: the validation split is used for testing.")
    return {name: present[name] for name in ("train", "val", "test") if name in present}, notes


def ordered(classes: Sequence[str], order: ClassOrder) -> list[str]:
    """The class names in `dataset.class_order`; `natural` keeps the given order."""
    return list(classes) if order == NATURAL else list(in_class_order(classes, order))


def as_tree(
    root: Path, origin: str, listings: dict[str, Listing], classes: Sequence[str], what: str
) -> Tree:
    """A tree of these splits; each label is one of `classes`.

    Raises DataError for validation or test images of a class without training images.
    """
    number = {name: position for position, name in enumerate(classes)}
    train = set(listings["train"].labels)
    for split, rows in listings.items():
        unseen = sorted(set(rows.labels) - train, key=natural)
        if unseen:
            raise DataError(
                f"{what}: {len(unseen)} {'class' if len(unseen) == 1 else 'classes'} of the "
                f"{split} split {'has' if len(unseen) == 1 else 'have'} no training images: "
                f"{abbreviate(unseen)}."
            )
    splits = {
        split: FileList(
            rows.sources, [number[label] for label in rows.labels], rows.sizes, rows.times
        )
        for split, rows in listings.items()
    }
    return Tree(root, tuple(classes), splits, origin)


def sorted_by_class(rows: Listing, classes: Sequence[str]) -> Listing:
    """The images sorted by class, then path, as in an image folder."""
    number = {name: position for position, name in enumerate(classes)}
    order = sorted(
        range(len(rows)), key=lambda row: (number[rows.labels[row]], str(rows.sources[row]))
    )
    return Listing(
        [rows.sources[row] for row in order],
        [rows.labels[row] for row in order],
        [rows.sizes[row] for row in order],
        [rows.times[row] for row in order],
    )


def are_numbers(labels: Iterable[str]) -> bool:
    """Whether all labels are whole numbers."""
    return all(NUMBER.fullmatch(label) for label in labels)


def classes_in_order(
    labels: Iterable[str], what: str, order: ClassOrder
) -> tuple[list[str], list[str]]:
    """Class names of `labels` in `order` (see `in_class_order`), and notes.

    Natural order sorts numeric labels by value.

    Raises DataError if two labels spell the same number ("1" and "01") or the same name, for
    negative numbers, and for words that mark images without a label, unless `order` lists them.
    """
    distinct = set(labels)
    if are_numbers(distinct):
        value = {label: int(label.split(".")[0]) for label in distinct}
        classes = sorted(distinct, key=lambda label: value[label])
        for first, second in itertools.pairwise(classes):
            if value[first] == value[second]:
                raise DataError(
                    f"{what} has the labels {first!r} and {second!r}, which are the same number: "
                    "use one spelling."
                )
        signs = sorted(value.values()) == [-1, 1]  # the two classes of a binary task
        if classes and value[classes[0]] < 0 and not signs:
            raise DataError(
                f"{what} has the label {classes[0]}, which usually marks unlabelled images: leave "
                "them out; if it is a class, write the labels as words (neg, pos)."
            )
        return ordered(classes, order), []
    classes = sorted(distinct, key=natural)
    refuse_two_forms(classes, what)
    notes = [*spelling_notes(classes, what), *order_note(classes, order)]
    notes += _combination_notes(classes, what)
    if order in (NATURAL, LEXICOGRAPHIC):
        notes += _unlabelled_notes(classes, what)
    numbers = [name for name in classes if are_numbers([name])]
    if numbers:
        notes.append(
            f"{what}: {len(numbers)} of {len(classes)} different labels are numbers "
            f"({abbreviate(numbers)}), the others words: if both name the same classes, use one."
        )
    return ordered(classes, order), notes


def _unlabelled_notes(classes: Sequence[str], what: str) -> list[str]:
    """Notes on classes that may be a missing label. Raises DataError for one that must be."""
    if all(len(name) == 1 for name in classes):  # characters
        return []
    found = [name for name in classes if name.casefold() in NO_LABEL]
    remedy = "leave these images out; if it is a class, list all classes in dataset.class_order"
    for name in found:
        if name.casefold() not in MAYBE_NO_LABEL:
            raise DataError(f"{what} has the label {name!r}, which marks a missing one: {remedy}.")
    return [f"{what}: the label {name!r} may mark a missing one: {remedy}." for name in found]


def _combination_notes(classes: Sequence[str], what: str) -> list[str]:
    """A note on labels such as `cat|dog` next to `cat` and `dog`: several labels of one image."""
    known = set(classes)
    joined = [
        name
        for name in classes
        if len(parts := [part for part in JOINTS.split(name) if part]) > 1
        and known.issuperset(parts)
    ]
    if not joined:
        return []
    return [
        f"{what}: {len(joined)} of {len(classes)} labels join others ({abbreviate(joined)}): each "
        "is a class of its own, because an image has one class."
    ]


def label_classes(
    splits: dict[str, Listing],
    names: Sequence[str] | None,
    num_classes: int | None,
    order: ClassOrder,
    what: str,
) -> tuple[list[str], list[str]]:
    """Class names in order, and notes; replaces numeric labels by class names in place.

    Numeric labels are class numbers (`numbered_classes`) unless `names` lists them as names. Other
    labels are names, in the order of `names` if given, else in natural order.
    """
    labels = {label for listing in splits.values() for label in listing.labels}
    if names is not None and num_classes != len(names):
        _refuse_header(names, labels, what)
    if names is not None and labels <= set(names) and not are_numbers(labels):
        return _without_images(splits, ordered(names, order), what)
    if are_numbers(labels):
        name_of, classes, notes = numbered_classes(labels, names, num_classes, what)
        for listing in splits.values():
            listing.labels = [name_of[label] for label in listing.labels]
        classes, empty_notes = _without_images(splits, ordered(classes, order), what)
        return classes, [*notes, *empty_notes]
    if names is not None:
        unknown = sorted(labels - set(names), key=natural)
        raise DataError(
            f"{what}: {len(unknown)} labels are not class names: {abbreviate(unknown)}."
        )
    return classes_in_order(labels, what, order)


def _refuse_header(names: Sequence[str], labels: set[str], what: str) -> None:
    """Raise DataError if the first name is a header: one name too many, and no image has it."""
    if not names or not heads_classes(names[0]) or names[0] in labels:
        return
    if are_numbers(labels) and max(int(label.split(".")[0]) for label in labels) != len(names) - 2:
        return
    raise DataError(
        f"{what}: the first of the {len(names)} class names is {names[0]!r}, like the header of a "
        f"list, and no image has it: remove that line, or set dataset.num_classes={len(names)} if "
        "it is a class."
    )


def _without_images(
    splits: dict[str, Listing], classes: Sequence[str], what: str
) -> tuple[list[str], list[str]]:
    """The classes, and a note on classes without training images."""
    train = set(splits["train"].labels)
    absent = [name for name in classes if name not in train]
    if not absent:
        return list(classes), []
    return list(classes), [
        f"{what}: {len(absent)} of {len(classes)} classes have no training images: "
        f"{abbreviate(absent)}."
    ]


def numbered_classes(
    labels: set[str], names: Sequence[str] | None, num_classes: int | None, what: str
) -> tuple[dict[str, str], list[str], list[str]]:
    """Names for labels that are class numbers: (label → name, class names in order, notes).

    Without `names` the numbers must be 0 … n-1, unless `num_classes` resolves gaps: a value above
    the largest number keeps the numbers, the count of distinct numbers renumbers them.

    Raises DataError for numbers that neither resolves.
    """
    values = {label: int(label.split(".")[0]) for label in labels}
    low, high, count = min(values.values()), max(values.values()), len(set(values.values()))
    if low < 0:
        raise DataError(
            f"{what} has the label {low}, which usually marks unlabelled images: leave them out; "
            "if whole files have no labels, list the other files in dataset.train=FILES."
        )
    if names is not None:
        if high >= len(names):
            raise DataError(
                f"{what} has labels up to {high}, but there are {len(names)} class names, numbered "
                "from 0."
            )
        return {label: names[value] for label, value in values.items()}, list(names), []
    if num_classes == count and count != high + 1:
        order = sorted(set(values.values()))
        note = f"{what}: the {count} labels from {low} to {high} are numbered 0 to {count - 1}."
        return {label: str(value) for label, value in values.items()}, list(map(str, order)), [note]
    total = high + 1 if num_classes is None else num_classes
    if num_classes is not None and num_classes <= high:
        raise ConfigError(
            f"dataset.num_classes={num_classes}: {what} has {count} labels from {low} to {high}; "
            f"set {high + 1} to keep these numbers, or {count} to number the ones that occur."
        )
    if count < total and num_classes is None:
        raise DataError(
            f"{what} has {count} different labels from {low} to {high}, not 0 to {count - 1}: set "
            f"dataset.num_classes={count} to number those that occur, or "
            f"dataset.num_classes={high + 1} to keep the numbers."
        )
    classes = [str(number) for number in range(total)]
    return {label: str(value) for label, value in values.items()}, classes, []


def class_names_from(
    value: str | list[str] | None, base: Path, stored: Sequence[str] | None = None
) -> tuple[list[str] | None, str]:
    """Class names from a list, a file, or a file with a usual name in `base`.

    Returns the names and their file ("" for none). Text files hold one name per line, which may
    follow its number (`0 cat`), JSON files a list, {"0": name} or {name: 0}.
    stored: names in the data, used unless `value` is set.
    """
    if isinstance(value, list):
        return _distinct([str(name) for name in value], "dataset.class_names"), ""
    if value is not None:
        path = Path(value).expanduser()
        path = path if path.exists() or path.is_absolute() else base / path
        if not path.is_file():
            raise ConfigError(
                f"dataset.class_names={value} is not a file: give a file with one name per line "
                "or a list, '[cat,dog]'."
            )
        return _read_names(path), str(path)
    if stored is not None:
        return _distinct(list(stored), "the data set"), ""
    for stem in CLASS_FILES:
        for ending in (".txt", ".json"):
            if (path := base / (stem + ending)).is_file():
                return _read_names(path), str(path)
    return None, ""


def _read_names(path: Path) -> list[str]:
    """Class names in a text or JSON file, in the order of their numbers."""
    try:
        if path.stat().st_size > LARGEST_CLASS_FILE:
            raise DataError(f"{path} is too large for a list of class names.")
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            return _distinct(list(without_numbers(lines)), path)
        content = json.loads(text)
        if isinstance(content, dict):
            if all(str(number).isdecimal() for number in content.values()):
                content = {number: name for name, number in content.items()}
            numbers = {int(key): str(name) for key, name in content.items()}
            if sorted(numbers) != list(range(len(numbers))):
                raise ValueError("its numbers are not 0 to n-1")
            content = [numbers[number] for number in range(len(numbers))]
        if not isinstance(content, list):
            raise ValueError("it is neither a list nor a mapping")
        if any(isinstance(name, list | dict) for name in content):
            raise ValueError("its entries are lists or mappings, not names")
        return _distinct([str(name) for name in content], path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The class names in {path} cannot be read ({error}): expected one name per line, or "
            'a JSON list or {"0": "name"}.'
        ) from None


def _distinct(names: list[str], where: Path | str) -> list[str]:
    """The names. Raises DataError if one occurs twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{where} lists a class twice: {abbreviate(repeated)}.")
    return names
