"""Attention transfer."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, maps, match_by_hand, total
from torch import Tensor

from kdrun.errors import ConfigError


def attention(image: Tensor, power: float) -> Tensor:
    """The map of one image's features `[C, H, W]`; the scale falls out."""
    q = sum(channel.abs() ** power for channel in image)
    return q / (q * q).sum().sqrt()


def by_hand(case: Case) -> Tensor:
    losses = []
    for s, t in maps(case):
        s, t = match_by_hand(s, t)
        places = s.shape[2] * s.shape[3]
        for a, b in zip(s, t, strict=True):
            squares = (attention(a, case.term.power) - attention(b, case.term.power)).square().sum()
            if case.term.variant == "paper":
                squares = squares.sqrt() / 2
            losses.append(squares / (places * len(s)))
    return total(losses)


@pytest.mark.parametrize("pair", ["cnn", "mobilenet"])
@pytest.mark.parametrize("settings", [{}, {"power": 3.0}, {"variant": "paper"}], ids=str)
def test_agrees_with_loops(pair: str, settings: dict[str, object]) -> None:
    case = exact_case("at", pair, **settings)
    assert_same(case, lambda: by_hand(case))


def test_equal_maps_have_a_gradient_of_zero_in_the_paper_too() -> None:
    case = make_case("at", "same", variant="paper")
    for name, features in case.teacher.features.items():
        features.copy_(case.student.features[name].detach())
    loss = case.loss()
    assert loss == 0
    for gradient in torch.autograd.grad(loss, list(case.student.features.values())):
        assert not gradient.any()


def test_golden() -> None:
    for variant, expected in GOLDEN.items():
        found = make_case("at", "mobilenet", variant=variant).loss()
        assert found.item() == pytest.approx(expected, rel=1e-5)


GOLDEN = {"repdistiller": 0.022825543, "paper": 0.038200904}


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"stage2 \[2, 10, 1, 1\] with stage3 .*Use loss=sp"):
        make_case("at", "mlp")
    with pytest.raises(ConfigError, match="must be at least 1"):
        make_case("at", power=0.5)
    with pytest.raises(ConfigError, match=r"variant=papre .*paper"):
        make_case("at", variant="papre")
