"""Neuron selectivity transfer."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, maps, match_by_hand, total
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.nst import squared_discrepancy
from kdrun.losses.shapes import unit


def mean_kernel(a: Tensor, b: Tensor) -> Tensor:
    """Over the pairs of channels of two images `[C, H, W]`."""
    kernels = []
    for x in a:
        for y in b:
            kernels.append((x * y).sum() ** 2 / ((x * x).sum() * (y * y).sum()))
    return torch.stack(kernels).mean()


def by_hand(case: Case) -> Tensor:
    losses = []
    for s, t in maps(case):
        images = [
            mean_kernel(b, b) + mean_kernel(a, a) - 2 * mean_kernel(a, b)
            for a, b in zip(*match_by_hand(s, t), strict=True)
        ]
        losses.append(torch.stack(images).mean())
    return total(losses)


@pytest.mark.parametrize(
    ("pair", "taps"), [("cnn", ["stages"]), ("mobilenet", ["stage1", ["stage3", "stage2"]])]
)
def test_agrees_with_loops(pair: str, taps: list[object]) -> None:
    case = exact_case("nst", pair, batch=2, taps=taps)
    assert_same(case, lambda: by_hand(case))


def test_both_forms_agree() -> None:
    """A map of as many places as the widest has channels, and one of one place more."""
    torch.manual_seed(0)
    s, t = torch.randn(3, 5, 10, dtype=torch.float64), torch.randn(3, 9, 10, dtype=torch.float64)
    s, t = unit(s, 2), unit(t, 2)
    idle = torch.zeros(3, 1, 10, dtype=torch.float64)  # an idle channel has the kernel 0
    wide = torch.cat([t, idle], dim=1)
    kernel = lambda a, b: (a @ b.mT).square().mean()  # noqa: E731
    for other in (t, wide):
        expected = kernel(other, other) + kernel(s, s) - 2 * kernel(s, other)
        torch.testing.assert_close(squared_discrepancy(s, other), expected)


def test_golden() -> None:
    assert make_case("nst").loss().item() == pytest.approx(GOLDEN[0], rel=1e-5)
    assert make_case("nst", "mobilenet").loss().item() == pytest.approx(GOLDEN[1], rel=1e-5)


GOLDEN = (0.48449808, 0.28598598)


def test_places_are_needed() -> None:
    with pytest.raises(ConfigError, match=r"stage2 \[2, 10, 1, 1\] with stage3 .*Use loss=sp"):
        make_case("nst", "mlp")
