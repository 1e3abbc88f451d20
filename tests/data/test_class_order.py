"""Class numbering: both usual orders, ties, lists, files, and what is refused."""

import itertools
from pathlib import Path

import pytest

from kdrun.data.class_order import class_orders, in_class_order, natural, order_note
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError

NUMBERS = [str(number) for number in range(12)]


def test_both_orders() -> None:
    orders = class_orders(reversed(NUMBERS))
    assert orders["natural"] == tuple(NUMBERS)
    assert orders["lexicographic"] == (*("0", "1", "10", "11"), *map(str, range(2, 10)))
    assert in_class_order(NUMBERS, "natural") == orders["natural"]
    assert in_class_order(NUMBERS, "lexicographic") == orders["lexicographic"]


@pytest.mark.parametrize(
    "names", [["1", "01", "001", "2"], ["a1b", "a01b", "a1c"], ["x", "X", "x1", "x01"], ["1", "١"]]
)
def test_natural_order_is_total(names: list[str]) -> None:
    found = {tuple(sorted(order, key=natural)) for order in itertools.permutations(names)}
    assert len(found) == 1


def test_ties_are_broken_by_the_name() -> None:
    assert sorted(["1", "01", "001", "0"], key=natural) == ["0", "001", "01", "1"]


def test_very_long_numbers_sort() -> None:
    assert sorted(["9" * 5000, "8" * 5000], key=natural)[0][0] == "8"


def test_a_difference_is_noted_once_and_only_when_nobody_chose() -> None:
    (note,) = order_note(NUMBERS, "natural")
    assert "class 2 is 2" in note
    assert "class 2 is 10" in note
    assert "dataset.class_order=lexicographic" in note
    assert order_note(class_orders(NUMBERS)["lexicographic"], "lexicographic") == []
    assert order_note(["cat", "dog"], "natural") == []


def test_a_list_of_names() -> None:
    assert in_class_order(["cat", "dog", "1"], ["dog", 1, "cat"]) == ("dog", "1", "cat")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (["dog", "cta"], r"lists no folder's name: cta.*Did you mean 'cat'"),
        (["dog"], "leaves out: cat"),
        (["dog", "cat", "dog"], "lists twice: dog"),
        ("natral", "neither natural nor lexicographic, nor a list .*Did you mean 'natural'"),
        ("~nobody-here/classes.txt", "cannot be read|neither"),
        ("x" * 5000, "cannot be read"),
        ("a\0b", "neither"),
    ],
)
def test_orders_that_do_not_fit(order: str | list[str | int], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^dataset\.class_order.*({words})"):
        in_class_order(["cat", "dog"], order)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog\ncat\n\nbig bird\n", ("dog", "cat", "big bird")),
        ("\ufeffdog\r\ncat\r\nbig bird", ("dog", "cat", "big bird")),
        ("0 dog\n1 cat\n2 big bird\n", ("dog", "cat", "big bird")),
        ("1\tcat\n2\tbig bird\n3\tdog\n", ("cat", "big bird", "dog")),
    ],
)
def test_a_file_of_names(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    assert in_class_order(["cat", "dog", "big bird"], str(path)) == expected


def test_a_list_of_synsets(tmp_path: Path) -> None:
    path = tmp_path / "synset_words.txt"
    path.write_text("n02 tench, Tinca tinca\nn01 goldfish, Carassius auratus\n")
    assert in_class_order(["n01", "n02"], str(path)) == ("n02", "n01")


def test_first_words_may_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("0 zero\n10 ten\n2 two\n")
    assert in_class_order(["0", "2", "10"], str(path)) == ("0", "10", "2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cat\ndgo\n", "lists no folder's name: dgo.*Did you mean 'dog'"),
        (b"cat\n", "leaves out: dog"),
        (b"cat\n\xff\n", "not UTF-8"),
        (b"", "leaves out: cat, dog"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        in_class_order(["cat", "dog"], str(path))


def test_a_file_with_two_meanings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("0 1\n1 0\n")
    with pytest.raises(ConfigError, match="read in two ways"):
        in_class_order(["0", "1"], str(path))


def test_abbreviated() -> None:
    assert abbreviate(list("abc")) == "a, b, c"
    assert abbreviate(list("abcdefg")) == "a, b, c, d, e and 2 more"
