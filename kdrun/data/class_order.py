"""Class numbers: natural or lexicographic order, or the order of a list or file."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from kdrun.config.readers import LEXICOGRAPHIC, read_names, without_numbers
from kdrun.config.readers import NATURAL as NATURAL
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, did_you_mean

DIGITS = re.compile(r"(\d{1,1000})")  # int() refuses more than 4,300 digits
ClassOrder = str | list[str | int]


def natural(name: str) -> tuple[list[str | int], str]:
    """Sort key: numbers in names by value, equal values (`1`, `01`) by name."""
    parts = DIGITS.split(name)
    return [int(part) if part.isdecimal() else part for part in parts], name


def class_orders(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The class names in `natural` (kdrun) and `lexicographic` (torchvision) order.

    The two differ only for numbers without leading zeros.
    """
    names = list(names)
    return {NATURAL: tuple(sorted(names, key=natural)), LEXICOGRAPHIC: tuple(sorted(names))}


def in_class_order(names: Collection[str], order: ClassOrder) -> tuple[str, ...]:
    """The class names in `dataset.class_order`.

    order: `natural`, `lexicographic`, a list of all names, or the path of a text file.
    Raises ConfigError for an unknown order, an unreadable file, and names that are missing, unknown
    or repeated.
    """
    if isinstance(order, str):
        orders = class_orders(names)
        if order in orders:
            return orders[order]
        name = "dataset.class_order"
        return _of_lines(read_names(order, name), names, f"{name}={order}")
    return _of_lines([str(name) for name in order], names, "dataset.class_order")


def order_note(classes: Sequence[str], order: ClassOrder) -> list[str]:
    """A note if the default natural order differs from torchvision's; empty otherwise."""
    lexicographic = class_orders(classes)[LEXICOGRAPHIC]
    if order != NATURAL or tuple(classes) == lexicographic:
        return []
    pairs = zip(classes, lexicographic, strict=True)
    number = next(number for number, (ours, theirs) in enumerate(pairs) if ours != theirs)
    return [
        f"Classes are in natural order (class {number} is {classes[number]}); torchvision sorts "
        f"them as text (class {number} is {lexicographic[number]}): "
        "dataset.class_order=lexicographic does the same."
    ]


def _of_lines(lines: list[str], names: Collection[str], where: str) -> tuple[str, ...]:
    """The order given by a list or the lines of a file; see `_columns` for their format."""
    fitting = {
        tuple(column)
        for column in _columns(lines)
        if set(column) == set(names) and len(column) == len(names)
    }
    if len(fitting) > 1:
        raise ConfigError(f"{where} can be read in two ways: write one class name per line.")
    return fitting.pop() if fitting else _checked(lines, names, where)


def _columns(lines: list[str]) -> Iterable[Sequence[str]]:
    """Candidate class names: whole lines, their first words (`n01440764 tench, Tinca tinca`),
    or the text next to a number (`0 cat`, `cat 0`), in the order of the numbers.
    """
    yield lines
    numbered = without_numbers(lines)
    first_words = [re.split(r"[\s,;]+", line, maxsplit=1)[0] for line in lines]
    numbers_last = set(first_words) == set(numbered) and not all(map(str.isdecimal, first_words))
    if numbered == tuple(lines) or not numbers_last:
        yield first_words
    yield numbered


def _checked(listed: list[str], names: Collection[str], where: str) -> tuple[str, ...]:
    known = set(names)
    for problem, wrong in (
        ("lists twice", [name for name, count in Counter(listed).items() if count > 1]),
        ("lists no folder's name", [name for name in listed if name not in known]),
        ("leaves out", sorted(known - set(listed), key=natural)),
    ):
        if wrong:
            hint = did_you_mean(wrong[0], known) if problem == "lists no folder's name" else ""
            raise ConfigError(
                f"{where} {problem}: {abbreviate(wrong)}. It must name every class once.{hint}"
            )
    return tuple(listed)
