"""Which outputs of a teacher are the classes, in which order."""

from typing import Any

import pytest

from kdrun.config import rules
from kdrun.config.convert import from_plain, to_plain
from kdrun.config.schema import TeacherInput
from kdrun.errors import ConfigError
from kdrun.teachers.outputs import Outputs, chosen_outputs, format_mapping, list_setting

CLASSES = ("1", "2", "10")  # the data set's own order: natural


def teacher_input(node: dict[str, Any], where: str) -> TeacherInput:
    config = from_plain(TeacherInput, node, where)
    rules.teacher_constants(config, where)
    return config


def chosen(count: int, names: tuple[str, ...] | None = None, **given: object) -> object:
    return chosen_outputs(teacher_input(given, "teacher"), CLASSES, Outputs(count, names))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"class_order": "natural"}, None),
        ({"class_order": "lexicographic"}, (0, 2, 1)),  # 1, 10, 2
        ({"class_order": ["10", "1", "2"]}, (1, 2, 0)),
        ({"classes": [2, 0, 1]}, (2, 0, 1)),
        ({"classes": [0, 1, 2]}, None),
        ({"classes": ["2", "10", "1"], "class_order": ["10", "2", "1"]}, (2, 1, 0)),
    ],
)
def test_as_many_outputs_as_classes(given: dict[str, object], expected: object) -> None:
    assert chosen(3, **given) == expected


def test_more_outputs_are_chosen_by_number_and_name() -> None:
    names = ("cat", "Dog House", "10", "1", "2")
    assert chosen(5, classes=[4, 0, 2]) == (4, 0, 2)
    assert chosen(5, names, classes=["cat", "dog_house", 4]) == (0, 1, 4)
    assert chosen(5, class_order=list(names)) == (3, 4, 2)  # every class by its name
    assert chosen(5, names, classes=["10", "2", "1"]) == (3, 4, 2)  # its classes, any order


@pytest.mark.parametrize(
    ("count", "given", "text"),
    [
        (5, {}, r"5 outputs, and the data set has 3 classes.*'teacher\.classes=\[\.\.\.\]'"),
        (2, {}, "a teacher must know every class"),
        (5, {"classes": [0, 1]}, "names 2 outputs, and the data set has 3 classes"),
        (5, {"classes": [0, 1, 5]}, "numbered from 0 to 4"),
        (5, {"classes": [0, 1, -1]}, "numbered from 0 to 4"),
        (5, {"classes": [0, 1, 1]}, "assigns output 1 to both '2' and '10'"),
        (5, {"classes": ["a", "b", "c"]}, "the names of the teacher's 5 outputs are unknown"),
        (5, {"classes": ["2", "a", "b"]}, "gives the output '2' to the class '1'"),
        (5, {"class_order": "natural"}, "the teacher has 5 outputs"),
        (5, {"class_order": ["1", "2", "10"]}, "names 3 outputs"),
        (3, {"class_order": ["1", "2", "3"]}, "has no 10"),
        (3, {"class_order": "natural", "classes": [0, 1, 2]}, "set only one"),
    ],
)
def test_what_does_not_fit_is_refused(count: int, given: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        chosen(count, **given)


def test_a_number_that_is_the_name_of_another_output_is_refused() -> None:
    names = ("10", "1", "2", "3")
    with pytest.raises(ConfigError, match=r"number 1, which is named .2., or") as caught:
        chosen(4, ("10", "2", "1", "3"), classes=[1, "2", "10"])
    assert "output named '1'" in str(caught.value)
    assert chosen(4, names, classes=["1", "2", "10"]) == (1, 2, 0)


def test_names_that_stand_twice_need_a_number() -> None:
    names = ("crane", "crane", "1", "2", "x")
    with pytest.raises(ConfigError, match=r"outputs 0, 1 are all named 'crane': give the number"):
        chosen(5, names, classes=["crane", 2, 3])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\nb b\n\nc\n", ("a", "b b", "c")),
        ("0 a\n1 b b\n2 c\n", ("a", "b b", "c")),
        ("1: a\n2: b b\n", ("a", "b b")),
        ("\ufeff0\n1\n10\n", ("0", "1", "10")),
    ],
)
def test_an_order_is_read_from_a_file(
    tmp_path: pytest.TempPathFactory, text: str, names: tuple[str, ...]
) -> None:
    path = tmp_path / "names.txt"  # type: ignore[operator]
    path.write_text(text, encoding="utf-8")
    assert teacher_input({"class_order": str(path)}, "teacher").class_order == names


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"class_order": "nowhere.txt"}, "nor a text file"),
        ({"class_order": ["a", "b", "a"]}, "names 'a' twice"),
        ({"classes": 3}, "must be a list"),
        ({"classes": [1, 2.5]}, "neither the number nor the name"),
        ({"channels": 4}, "must be 1 .grey. or 3 .colour."),
        ({"mean": 0.5}, r"teacher\.mean is set without teacher\.std"),
        ({"mean": "x", "std": 1}, "must be a number or one number per channel"),
        ({"mean": [0.5, 0.5], "std": [0.5]}, "has 2 values and teacher.std has 1"),
        ({"mean": 0.5, "std": [0.5, 0]}, "must be above 0"),
    ],
)
def test_values_that_cannot_be(given: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        teacher_input(given, "teacher")


def test_only_what_is_set_is_written() -> None:
    assert to_plain(TeacherInput()) == {}
    given = TeacherInput(0.5, (0.1, 0.2), 3, ("a", 1), "natural")
    assert teacher_input(to_plain(given), "teacher") == given


def test_words() -> None:
    assert format_mapping((1, 0), ("a", "b"), ("b", "x")) == "a ← 1 (x), b ← 0"
    assert list_setting("teacher.classes", ["a", "b c", 3]) == "'teacher.classes=[a,\"b c\",3]'"
