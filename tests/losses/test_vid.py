"""Variational information distillation."""

import math

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, maps, match_by_hand, run_by_hand, total
from torch import Tensor
from torch.distributions import Normal

from kdrun.errors import ConfigError


def by_hand(case: Case) -> Tensor:
    losses = []
    constant = 0.5 * math.log(2 * math.pi)
    for mean, rho, (s, t) in zip(case.term.means, case.term.rho, maps(case), strict=True):
        s, t = match_by_hand(s, t)
        mu = run_by_hand(mean, s)
        sigma = (torch.log(1 + torch.exp(rho)) + 1e-5).sqrt()
        channels = [
            -Normal(mu[:, c], sigma[c]).log_prob(t[:, c]) - constant for c in range(t.shape[1])
        ]
        losses.append(torch.stack(channels).mean())
    return total(losses)


@pytest.mark.parametrize("pair", ["cnn", "mlp", "mobilenet"])
@pytest.mark.parametrize("variant", ["repdistiller", "mdistiller"])
def test_agrees_with_the_normal_distribution(pair: str, variant: str) -> None:
    case = exact_case("vid", pair, variant=variant)
    assert_same(case, lambda: by_hand(case))


@pytest.mark.parametrize("variance", [5.0, 0.01, 300.0])
def test_first_variance(variance: float) -> None:
    term = make_case("vid", variance=variance).term
    for rho in term.rho:
        found = torch.nn.functional.softplus(rho.detach()) + 1e-5
        torch.testing.assert_close(found, torch.full_like(found, variance))


def test_only_repdistiller_trains_the_variance() -> None:
    assert all(rho.requires_grad for rho in make_case("vid").term.rho)
    fixed = make_case("vid", variant="mdistiller")
    assert not any(rho.requires_grad for rho in fixed.term.rho)
    torch.testing.assert_close(fixed.loss(), make_case("vid").loss())
    assert len(fixed.term.state_dict()) == len(make_case("vid").term.state_dict())


def test_golden() -> None:
    assert make_case("vid").loss().item() == pytest.approx(GOLDEN[0], rel=1e-5)
    assert make_case("vid", "mobilenet").loss().item() == pytest.approx(GOLDEN[1], rel=1e-5)


GOLDEN = (1.804409, 2.4365003)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"variance=0 must be above"):
        make_case("vid", variance=0.0)
    with pytest.raises(ConfigError, match="There are: repdistiller, mdistiller"):
        make_case("vid", variant="xyz")
