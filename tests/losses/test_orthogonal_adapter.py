"""`adapter=orthogonal`: the projection, its losses in loops, and where it is refused."""

from typing import Any

import pytest
import torch
from losses.map_cases import assert_same, exact_case, maps
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses import ITRD, SRD, FitNet
from kdrun.losses.adapters import OrthogonalProjection, standardised
from kdrun.losses.choice import chosen_losses
from kdrun.losses.objective import build_objective


@pytest.mark.parametrize(("inner", "outer"), [(3, 5), (4, 4), (6, 2)])
def test_the_weight_stays_orthogonal_in_training(inner: int, outer: int) -> None:
    torch.manual_seed(0)
    projection = OrthogonalProjection(inner, outer).double()
    rows = torch.randn(9, inner).double()
    optimizer = torch.optim.SGD(projection.parameters(), lr=0.5)
    before = projection.linear.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(projection(rows), torch.ones(9, outer).double()).backward()
        optimizer.step()
    weight = projection.linear.weight.detach()
    assert not torch.allclose(weight, before)
    gram = weight.T @ weight if outer >= inner else weight @ weight.T
    # the first weights are orthogonal in float32
    torch.testing.assert_close(gram, torch.eye(min(inner, outer)).double(), rtol=0, atol=1e-6)
    if outer >= inner:
        torch.testing.assert_close(torch.cdist(projection(rows), projection(rows)).detach(),
                                   torch.cdist(rows, rows), rtol=1e-6, atol=1e-6)  # fmt: skip


def test_maps_are_projected_place_by_place() -> None:
    projection = OrthogonalProjection(3, 5)
    maps = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(projection(maps)[:, :, 1, 2], projection(maps[:, :, 1, 2]))


def test_a_state_loads_with_the_same_weight() -> None:
    first, second = OrthogonalProjection(3, 5), OrthogonalProjection(3, 5)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.linear.weight, second.linear.weight)


def test_standardised_channels() -> None:
    features = torch.randn(4, 3, 2, 2).double() * 5 + 2
    features[:, 1] = 7.0
    found = standardised(features)
    assert not found[:, 1].any()
    for channel in (0, 2):
        values = features[:, channel].flatten()
        expected = (values - values.mean()) / values.std(correction=0)
        torch.testing.assert_close(found[:, channel].flatten(), expected)


def test_fitnet_equals_the_loops() -> None:
    case = exact_case("fitnet", adapter="orthogonal")
    (regressor,) = case.term.regressors
    weight = regressor[-1].linear.weight

    def expected() -> Tensor:
        ((s, t),) = maps(case)
        s = F.interpolate(F.adaptive_avg_pool2d(s, [min(a, b) for a, b in zip(
            s.shape[2:], t.shape[2:], strict=True)]), t.shape[2:])  # fmt: skip
        total = torch.zeros((), dtype=s.dtype)
        for c in range(t.shape[1]):
            goal = (t[:, c] - t[:, c].mean()) / t[:, c].std(correction=0)
            made = sum(weight[c, k] * s[:, k] for k in range(s.shape[1]))
            total = total + ((made - goal) ** 2).sum()
        return total / t.numel()

    assert_same(case, expected)


@pytest.mark.parametrize("loss", ["itrd", "srd"])
def test_embedding_losses_project_by_the_same_weight(loss: str) -> None:
    case = exact_case(loss, batch=5, adapter="orthogonal")
    plain = exact_case(loss, batch=5)
    plain.term.projection.weight.data = case.term.projection.linear.weight.detach().clone()
    plain.term.projection.bias.data.zero_()
    torch.testing.assert_close(case.loss(), plain.loss())


@pytest.mark.parametrize("make", [FitNet, ITRD, SRD])
def test_an_unknown_adapter_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'orthogonal'"):
        make(adapter="orthogonl")


def test_a_loss_without_a_projection_refuses_it() -> None:
    def objective(loss: str) -> None:
        configs, _ = chosen_losses({loss: {"adapter": "orthogonal"}})
        build_objective(configs, None, None, None)

    objective("fitnet")
    with pytest.raises(ConfigError, match=r"loss\.kd\.adapter=orthogonal would change nothing"):
        objective("kd")
