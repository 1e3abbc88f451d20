"""Dropout: the right share, the right scale, another draw each time, and the run's seed decides."""

import pytest
import torch

from kdrun.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_a_share_is_dropped_and_the_rest_scaled(p: float) -> None:
    torch.manual_seed(0)
    values = torch.ones(200, 501, requires_grad=True)
    found = Dropout(p)(values)
    kept = found != 0
    assert 1 - float(kept.float().mean()) == pytest.approx(p, abs=0.005)
    torch.testing.assert_close(
        found[kept], torch.full_like(found[kept], 1 / (1 - p)), rtol=1e-4, atol=0.0
    )
    for axis in (0, 1):  # no row or column is favoured
        assert float((kept.float().mean(axis) - (1 - p)).abs().max()) < 0.15
    found.sum().backward()
    assert torch.equal(values.grad, found.detach())


def test_neighbours_are_independent() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(100_000)) != 0).float() - 0.5
    for distance in (1, 2, 3, 4, 8):
        assert abs(float((kept[distance:] * kept[:-distance]).mean())) < 0.005


def test_the_seed_decides_and_no_two_draws_are_alike() -> None:
    drop, values = Dropout(0.5), torch.ones(50, 50)
    torch.manual_seed(3)
    first, second = drop(values), drop(values)
    torch.manual_seed(3)
    assert torch.equal(drop(values), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_keeps_the_precision(dtype: torch.dtype) -> None:
    assert Dropout(0.2)(torch.ones(3, 5, dtype=dtype)).dtype is dtype


def test_nothing_is_dropped_where_nothing_shall_be() -> None:
    values = torch.randn(4, 4)
    assert torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert not Dropout(1.0)(values).any()
