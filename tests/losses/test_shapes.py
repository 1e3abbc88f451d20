"""Bringing features to comparable maps."""

import pytest
import torch
from losses.map_cases import pool_by_hand, repeat_by_hand

from kdrun.errors import ConfigError
from kdrun.losses.shapes import as_map, pooled, resized, to_smaller, unit


@pytest.mark.parametrize("leading", [0, 1, 2])
def test_tokens_become_a_map_row_by_row(leading: int) -> None:
    image = torch.randn(2, 5, 3, 3)
    tokens = torch.stack([image[:, :, i, j] for i in range(3) for j in range(3)], dim=1)
    tokens = torch.cat([torch.full((2, leading, 5), 9.0), tokens], dim=1)
    assert torch.equal(as_map(tokens), image)


def test_units_become_one_place() -> None:
    assert as_map(torch.zeros(2, 7)).shape == (2, 7, 1, 1)
    assert as_map(torch.zeros(2, 7, 3, 4)).shape == (2, 7, 3, 4)


@pytest.mark.parametrize("shape", [(2, 8, 5), (2, 3, 4, 5, 6), (2,)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^the student's stage1 is \[2"):
        as_map(torch.zeros(shape), "the student's stage1")


@pytest.mark.parametrize("size", [(8, 6), (4, 3), (5, 6), (3, 4), (1, 1)])
def test_pooled(size: tuple[int, int]) -> None:
    features = torch.randn(2, 3, 8, 6)
    torch.testing.assert_close(pooled(features, size), pool_by_hand(features, size))


def test_each_side_goes_to_the_smaller() -> None:
    a, b = to_smaller(torch.randn(2, 3, 8, 2), torch.randn(2, 5, 4, 6))
    assert a.shape == (2, 3, 4, 2)
    assert b.shape == (2, 5, 4, 2)


def test_resized() -> None:
    features = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(resized(features, (8, 6)), repeat_by_hand(features, (8, 6)))
    expected = repeat_by_hand(pool_by_hand(features, (2, 4)), (2, 8))
    torch.testing.assert_close(resized(features, (2, 8)), expected)


def test_unit() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    found = unit(rows, dim=1)
    torch.testing.assert_close(found.detach(), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    found[:, 0].sum().backward()
    expected = torch.tensor([[0.128, -0.096], [1.0, 0.0]])
    torch.testing.assert_close(rows.grad, expected)
