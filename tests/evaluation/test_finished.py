"""Finished networks on data: classes in another order are refused with the order to set."""

from types import SimpleNamespace
from typing import Any

import pytest

from kdrun.errors import ConfigError
from kdrun.evaluation.finished import check_classes


def pair(card: list[str], data: list[str]) -> tuple[Any, Any]:
    info = SimpleNamespace(in_channels=3)
    return (
        SimpleNamespace(name="net", classes=tuple(card), info=info, data_fingerprint=None),
        SimpleNamespace(name="mine", classes=tuple(data), info=info, fingerprint="x"),
    )


@pytest.mark.parametrize(
    ("card", "data", "order"),
    [
        (["0", "10", "2"], ["0", "2", "10"], "lexicographic"),
        (["0", "2", "10"], ["0", "10", "2"], "natural"),
        (["b", "a", "c"], ["a", "b", "c"], r"\[the names in its order\]"),
    ],
)
def test_another_order_is_refused(card: list[str], data: list[str], order: str) -> None:
    with pytest.raises(ConfigError, match=rf"another order .*dataset\.class_order={order}"):
        check_classes(*pair(card, data))


def test_equal_orders_and_other_names_pass() -> None:
    check_classes(*pair(["a", "b"], ["a", "b"]))
    check_classes(*pair(["a", "b"], ["x", "y"]))
