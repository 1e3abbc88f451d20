"""Flow of the solution procedure."""

from itertools import pairwise

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, maps, match_by_hand, run_by_hand, total
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError

MOBILENET = {"taps": [["stem", "stem"], "stages"], "connectors": True}


def matrix(first: Tensor, second: Tensor, max_pool: bool) -> Tensor:
    """`[B, C_1, C_2]`, one pair of channels after the other."""
    if max_pool:
        factor = first.shape[2] // second.shape[2]
        first = F.max_pool2d(first, factor)
    else:
        first, second = match_by_hand(first, second)
    columns = [
        torch.stack([(a * b).flatten(1).mean(1) for b in second.unbind(1)], dim=1)
        for a in first.unbind(1)
    ]
    return torch.stack(columns, dim=1)


def by_hand(case: Case) -> Tensor:
    connected = [
        (run_by_hand([c], s), t) for c, (s, t) in zip(case.term.connectors, maps(case), strict=True)
    ]
    max_pool = case.term.variant == "paper"
    losses = []
    for (s, t), (next_s, next_t) in pairwise(connected):
        squares = (matrix(s, next_s, max_pool) - matrix(t, next_t, max_pool)) ** 2
        losses.append(squares.sum() / len(s) if max_pool else squares.mean())
    return total(losses)


@pytest.mark.parametrize("variant", ["repdistiller", "paper"])
@pytest.mark.parametrize(
    ("pair", "settings"),
    [("same", {}), ("cnn", {"connectors": True}), ("mobilenet", MOBILENET)],
    ids=["same", "cnn", "mobilenet"],
)
def test_agrees_with_loops(pair: str, settings: dict[str, object], variant: str) -> None:
    before = exact_case("fsp", pair, variant=variant, **settings)
    assert_same(
        before,
        lambda: by_hand(before),
        lambda: before.term.pretrain_loss(before.student, before.teacher, before.batch),
    )
    beside = exact_case("fsp", pair, variant=variant, pretrain_epochs=0, **settings)
    assert_same(beside, lambda: by_hand(beside))


def test_phases() -> None:
    case = make_case("fsp", "same", pretrain_epochs=4, pretrain_lr=0.5)
    plan = case.term.pretraining()
    assert plan is not None
    assert (plan.epochs, plan.lr, plan.optimizer) == (4, 0.5, "sgd")
    assert case.loss() == 0
    assert case.term.symbol() == "FSP(stage1+stage2; before the main phase)"
    assert make_case("fsp", "same", pretrain_epochs=0).term.symbol() == "FSP(stage1+stage2)"


def test_connectors_only_where_widths_differ() -> None:
    assert not list(make_case("fsp", "same", connectors=True).term.parameters())
    assert list(make_case("fsp", connectors=True).term.parameters())


def test_golden() -> None:
    assert make_case("fsp", "same", pretrain_epochs=0).loss().item() == pytest.approx(
        GOLDEN[0], rel=1e-5
    )
    case = make_case("fsp", connectors=True, variant="paper", pretrain_epochs=0)
    assert case.loss().item() == pytest.approx(GOLDEN[1], rel=1e-5)


GOLDEN = (0.029259427, 44.784882)


def test_refusals() -> None:
    with pytest.raises(ConfigError) as refused:
        make_case("fsp")
    for piece in ("[2, 4, 8, 8]", "[2, 8, 4, 4]", "[2, 12, 2, 2]", "loss.fsp.connectors=true"):
        assert piece in str(refused.value)
    with pytest.raises(ConfigError, match="at least two"):
        make_case("fsp", taps=["stage1"])
    with pytest.raises(ConfigError, match="There are: repdistiller, paper"):
        make_case("fsp", variant="xyz")
