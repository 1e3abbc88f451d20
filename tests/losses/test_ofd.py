"""Overhaul of feature distillation."""

import pytest
import torch
from losses.cases import PAIRS, Case, Pair, make_case
from losses.map_cases import assert_same, exact_case, maps, match_by_hand, run_by_hand, total
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.base import NetworkView
from kdrun.losses.margins import FixedMargin, MeasuredMargin, batch_norm_before, margin_of

PAIRS["mlp_teacher"] = Pair(teacher=PAIRS["mlp"].student, student=PAIRS["mlp"].teacher)


def by_hand(case: Case, margins: list[Tensor]) -> Tensor:
    """The three cases in which an element counts, written with the margin itself."""
    losses = []
    layers = zip(case.term.connectors, margins, maps(case), strict=True)
    for i, (connector, margin, (s, t)) in enumerate(layers):
        s, t = match_by_hand(s, t)
        s = run_by_hand(connector, s)
        m = margin.reshape(-1, 1, 1).expand_as(t)
        element = (
            (t > 0) * (s - t) ** 2
            + ((t > m) & (t <= 0) & (s > t)) * (s - t) ** 2
            + ((t <= m) & (s > m)) * (s - m) ** 2
        )
        losses.append(element.sum() / len(s) / 2 ** (len(margins) - 1 - i))
    return total(losses)


@pytest.mark.parametrize("pair", ["cnn", "mlp", "mobilenet"])
def test_agrees_with_the_cases(pair: str) -> None:
    case = exact_case("ofd", pair)
    margins = [layer(torch.empty(0)) for layer in case.term.margins]
    assert_same(case, lambda: by_hand(case, margins))


def test_agrees_with_the_cases_for_measured_margins() -> None:
    case = exact_case("ofd", margins="measured")
    margins = []
    for s, t in maps(case):
        _, t = match_by_hand(s, t)
        channels = [c[c < 0] for c in t.transpose(0, 1)]
        margins.append(torch.stack([c.mean() if len(c) else c.new_zeros(()) for c in channels]))
    assert any(m.any() for m in margins)
    assert_same(case, lambda: by_hand(case, margins))


def test_measured_on_the_first_batches_only() -> None:
    margin = MeasuredMargin(2)
    low = torch.tensor([[[[-1.0, -3.0]], [[1.0, 5.0]]]])
    torch.testing.assert_close(margin(low).flatten(), torch.tensor([-2.0, 0.0]))
    torch.testing.assert_close(margin(4.0 * low).flatten(), torch.tensor([-5.0, 0.0]))
    for _ in range(98):
        margin(low)
    after = margin(100.0 * low)
    torch.testing.assert_close(after, margin(low))
    torch.testing.assert_close(after.flatten(), torch.tensor([-2.06, 0.0]))
    assert set(margin.state_dict()) == {"negative", "share", "batches"}


def test_measured_batches_weigh_by_their_negative_share() -> None:
    margin = MeasuredMargin(1)
    margin(torch.tensor([[[[-1.0, -1.0, -1.0, -1.0]]]]))
    found = margin(torch.tensor([[[[-6.0, 2.0, 2.0, 2.0]]]]))
    assert float(found) == pytest.approx((-4.0 - 6.0) / 5)
    margin.eval()
    margin(torch.full((1, 1, 1, 4), -100.0))
    assert float(margin(torch.zeros(1, 1, 1, 1))) == pytest.approx(-2.0)


def expected_negative(mean: float, deviation: float) -> float:
    """E[x | x < 0] of a normal x, by summing over a fine grid."""
    x = mean + deviation * torch.linspace(-12, 12, 2_000_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((x - mean) / deviation) ** 2)
    below = x < 0
    return float((x * density)[below].sum() / density[below].sum())


def test_margins_from_batch_normalisation() -> None:
    norm = torch.nn.BatchNorm2d(6)
    cases = [(0.0, 1.0), (0.5, -0.7), (-2.0, 0.3), (1.0, 0.5), (4.0, 1.0), (-1.0, 0.0)]
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([mean for mean, _ in cases]))
        norm.weight.copy_(torch.tensor([deviation for _, deviation in cases]))
    found = margin_of(norm)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    for (mean, deviation), margin in zip(cases[:4], found, strict=False):
        assert float(margin) == pytest.approx(expected_negative(mean, abs(deviation)), rel=1e-4)
    assert float(found[4]) == -3.0  # as good as never negative
    assert float(found[5]) == -1.0  # always the same


class Block(torch.nn.Module):
    """A residual block whose activation is defined before what it follows."""

    def __init__(self) -> None:
        super().__init__()
        self.end = torch.nn.ReLU()
        self.first = torch.nn.BatchNorm2d(3)
        self.wide = torch.nn.BatchNorm2d(5)
        self.main = torch.nn.BatchNorm2d(3)
        self.side = torch.nn.Sequential(torch.nn.BatchNorm2d(3))


@pytest.mark.parametrize(
    ("tap", "expected"),
    [
        ("0", "0"),
        ("1:in", "0"),
        ("2.end:in", "2.main"),
        ("3", "3.1"),
        ("3.0", None),
        ("0:in", None),
        ("4", None),
    ],
)
def test_which_normalisation_is_found(tap: str, expected: str | None) -> None:
    network = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3),
        torch.nn.ReLU(),
        Block(),
        torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.ReLU()),
        torch.nn.BatchNorm2d(3, affine=False),
    )
    found = batch_norm_before(NetworkView(network, {"named": tap}), "named", 3)
    assert found is (None if expected is None else network.get_submodule(expected))


def test_auto_takes_batch_normalisation_where_there_is_one() -> None:
    assert all(isinstance(m, FixedMargin) for m in make_case("ofd").term.margins)
    assert all(isinstance(m, FixedMargin) for m in make_case("ofd", "mobilenet").term.margins)
    turned = make_case("ofd", "mlp_teacher").term
    assert all(isinstance(m, MeasuredMargin) for m in turned.margins)


def test_golden() -> None:
    assert make_case("ofd").loss().item() == pytest.approx(GOLDEN[0], rel=1e-5)
    found = make_case("ofd", "mobilenet", margins="measured").loss()
    assert found.item() == pytest.approx(GOLDEN[1], rel=1e-5)


GOLDEN = (180.32689, 300.52872)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="use auto, batch_norm, measured"):
        make_case("ofd", margins="xyz")
    with pytest.raises(ConfigError, match=r"no batch normalisation with 16 channels.*margins=auto"):
        make_case("ofd", "mlp_teacher", margins="batch_norm")
