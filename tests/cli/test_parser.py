"""What is done to the words of a command before Hydra reads them."""

import pytest

from kdrun.cli.parser import parse_composed


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("dataset.root=a-{000..009}.tar", "dataset.root='a-{000..009}.tar'"),
        ("dataset.train={x,y}/*.tar", "dataset.train='{x,y}/*.tar'"),
        ("+dataset.test=a{0..1}'.tar", '+dataset.test="a{0..1}\'.tar"'),
        ("dataset.root='a-{0..9}.tar'", "dataset.root='a-{0..9}.tar'"),
        ("dataset.root=plain", "dataset.root=plain"),
        ("dataset.root=a,b", "dataset.root=a,b"),
        ("student.width={a:1}", "student.width={a:1}"),
    ],
)
def test_patterns_of_shards_are_texts(typed: str, read: str) -> None:
    assert parse_composed("distill", [typed]).overrides == [read]
