"""Class names and numbers from the labels that a table or container lists."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from kdrun.config.readers import LEXICOGRAPHIC, without_numbers
from kdrun.data.class_order import NATURAL, ClassOrder, in_class_order, natural, order_note
from kdrun.data.containers.listing import Listing
from kdrun.data.containers.table_columns import is_class_header
from kdrun.data.spelling import refuse_two_forms, spelling_notes
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, DataError

NUMBER = re.compile(r"[+-]?\d+(\.0+)?")
CLASS_FILES = ("classes", "class_names", "classnames", "labels", "label_names")
JOINTS = re.compile(r"[|;,+ ]+")  # between several labels of one image
LARGEST_CLASS_FILE = 16 * 2**20
# What programs write for a missing label; `none` and `na` may as well be classes among other words.
MAYBE_NO_LABEL = {"na", "none"}
NO_LABEL = {"nan", "n/a", "#n/a", "<na>", "null", "?", "-"} | MAYBE_NO_LABEL


def _are_numbers(labels: Iterable[str]) -> bool:
    """Whether all labels are whole numbers."""
    return all(NUMBER.fullmatch(label) for label in labels)


def _number(label: str) -> int:
    return int(label.split(".")[0])


def _ordered(classes: Sequence[str], order: ClassOrder) -> list[str]:
    """The class names in `dataset.class_order`; `natural` keeps the given order."""
    return list(classes) if order == NATURAL else list(in_class_order(classes, order))


def classes_in_order(
    labels: Iterable[str], what: str, order: ClassOrder
) -> tuple[list[str], list[str]]:
    """Class names of `labels` in `order` (see `in_class_order`), and notes.

    Natural order sorts numeric labels by value.

    Raises DataError if two labels spell the same number ("1" and "01") or the same name, for
    negative numbers, and for words that mark images without a label, unless `order` lists them.
    """
    distinct = set(labels)
    if _are_numbers(distinct):
        classes = sorted(distinct, key=_number)
        for first, second in itertools.pairwise(classes):
            if _number(first) == _number(second):
                raise DataError(
                    f"{what} has the labels {first!r} and {second!r}, which are the same number: "
                    "use one spelling."
                )
        signs = list(map(_number, classes)) == [-1, 1]  # the two classes of a binary task
        if classes and _number(classes[0]) < 0 and not signs:
            raise DataError(
                f"{what} has the label {classes[0]}, which usually marks unlabelled images: leave "
                "them out; if it is a class, write the labels as words (neg, pos)."
            )
        return _ordered(classes, order), []
    classes = sorted(distinct, key=natural)
    refuse_two_forms(classes, what)
    notes = [*spelling_notes(classes, what), *order_note(classes, order)]
    notes += _combination_notes(classes, what)
    if order in (NATURAL, LEXICOGRAPHIC):
        notes += _unlabelled_notes(classes, what)
    numbers = list(filter(NUMBER.fullmatch, classes))
    if numbers:
        notes.append(
            f"{what}: {len(numbers)} of {len(classes)} different labels are numbers "
            f"({abbreviate(numbers)}), the others words: if both name the same classes, use one."
        )
    return _ordered(classes, order), notes


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
    notes: list[str] = []
    if _are_numbers(labels):
        name_of, names, notes = numbered_classes(labels, names, num_classes, what)
        for listing in splits.values():
            listing.labels = [name_of[label] for label in listing.labels]
    elif names is None:
        return classes_in_order(labels, what, order)
    elif unknown := sorted(labels - set(names), key=natural):
        raise DataError(
            f"{what}: {len(unknown)} labels are not class names: {abbreviate(unknown)}."
        )
    classes = _ordered(names, order)
    return classes, [*notes, *_untrained_notes(splits["train"], classes, what)]


def _refuse_header(names: Sequence[str], labels: set[str], what: str) -> None:
    """Raise DataError if the first name is a header: one name too many, and no image has it."""
    if not names or not is_class_header(names[0]) or names[0] in labels:
        return
    if _are_numbers(labels) and max(map(_number, labels)) != len(names) - 2:
        return
    raise DataError(
        f"{what}: the first of the {len(names)} class names is {names[0]!r}, like the header of a "
        f"list, and no image has it: remove that line, or set dataset.num_classes={len(names)} if "
        "it is a class."
    )


def _untrained_notes(train: Listing, classes: Sequence[str], what: str) -> list[str]:
    """A note on classes without training images."""
    trained = set(train.labels)
    absent = [name for name in classes if name not in trained]
    if not absent:
        return []
    return [
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
    values = {label: _number(label) for label in labels}
    numbers = sorted(set(values.values()))
    low, high, count = numbers[0], numbers[-1], len(numbers)
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
    name_of = {label: str(value) for label, value in values.items()}
    if num_classes == count and count != high + 1:
        note = f"{what}: the {count} labels from {low} to {high} are numbered 0 to {count - 1}."
        return name_of, list(map(str, numbers)), [note]
    if num_classes is not None and num_classes <= high:
        raise ConfigError(
            f"dataset.num_classes={num_classes}: {what} has {count} labels from {low} to {high}; "
            f"set {high + 1} to keep these numbers, or {count} to number the ones that occur."
        )
    if num_classes is None and count <= high:
        raise DataError(
            f"{what} has {count} different labels from {low} to {high}, not 0 to {count - 1}: set "
            f"dataset.num_classes={count} to number those that occur, or "
            f"dataset.num_classes={high + 1} to keep the numbers."
        )
    return name_of, list(map(str, range(num_classes or high + 1))), []


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
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise DataError(f"{where} lists a class twice: {abbreviate(repeated)}.")
    return names
