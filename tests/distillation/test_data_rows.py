"""The header's row of classes: all of a few, the first and the last of many."""

import pytest

from kdrun.distillation.data_rows import format_classes


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat", "dog"], "cat, dog"),
        ([str(n) for n in range(12)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"),
        ([str(n) for n in range(100)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..., 99"),
        (["x" * 60, "y" * 60, "z" * 30], "x" * 60 + ", ..., " + "z" * 30),
        (["a\nb", "c"], "a\\nb, c"),
    ],
)
def test_format_classes(classes: list[str], words: str) -> None:
    assert format_classes(classes) == words
