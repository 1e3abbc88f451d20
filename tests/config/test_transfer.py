"""The `transfer` node: read, written back, and what makes no sense refused."""

from typing import Any

import pytest

from kdrun.config import rules
from kdrun.config.convert import from_plain, to_plain
from kdrun.config.schema import TransferConfig
from kdrun.errors import ConfigError


def transfer_config(node: dict[str, Any]) -> TransferConfig:
    return from_plain(TransferConfig, node, "transfer")


def checked(node: dict[str, Any], optimizer: str = "sgd") -> TransferConfig:
    config = transfer_config(node)
    rules.transfer(config, optimizer)
    return config


@pytest.mark.parametrize(
    "node",
    [
        {},
        {"exclude_classes": [3, "cat"], "bias": 3.5},
        {"only_classes": [7, 8], "bias": "match", "fraction": 0.5, "seed": 2},
        {"labels": False, "fraction": 1},
        {"folder": "pictures"},
    ],
)
def test_written_back_it_is_the_same(node: dict[str, Any]) -> None:
    config = checked(node)
    assert transfer_config(to_plain(config)) == config


def test_forms_that_are_easily_typed() -> None:
    assert transfer_config({"exclude_classes": 3}).exclude_classes == (3,)
    assert transfer_config({"bias": None, "exclude_classes": None}) == TransferConfig()
    assert transfer_config({}) == TransferConfig()


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"exclude_clases": [3]}, "Did you mean 'exclude_classes'"),
        ({"exclude_classes": [3.5]}, "3.5 is neither a class number nor a name"),
        ({"exclude_classes": [True]}, "neither a class number"),
        ({"fraction": "some"}, "transfer.fraction='some' is not a number"),
        ({"fraction": 0}, r"must lie in \(0, 1\]"),
        ({"fraction": 1.5}, r"must lie in \(0, 1\]"),
        ({"seed": 1}, "transfer.seed=1 draws the share"),
        ({"seed": 1.5}, "not a whole number"),
        ({"labels": "no"}, "neither true nor false"),
        ({"bias": "mach", "only_classes": [1]}, "Did you mean 'match'"),
        ({"bias": True, "only_classes": [1]}, "not none, match or a number"),
        ({"bias": "match"}, "none is: add"),
        ({"bias": 3.5}, "none is: add"),
        ({"exclude_classes": [1], "only_classes": [2]}, "give only one"),
        ({"folder": "x", "exclude_classes": [1]}, "have no labels, so no class"),
    ],
)
def test_what_cannot_be_is_refused(node: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        checked(node)


@pytest.mark.parametrize("node", [{"labels": False}, {"folder": "x"}])
def test_two_momenta_need_labels(node: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="optimizer=dot"):
        checked(node, "dot")
