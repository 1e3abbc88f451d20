"""FitNet hints."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, maps, run_by_hand, total
from torch import Tensor

from kdrun.errors import ConfigError

TAPS = {"cnn": ["stage2"], "mlp": ["stage2"], "mobilenet": ["stage1", "stage2"]}


def squares(case: Case) -> list[Tensor]:
    """(r(f_s) - f_t)² of each tap pair, image by image and channel by channel."""
    found = []
    for regressor, (s, t) in zip(case.term.regressors, maps(case), strict=True):
        r = run_by_hand(regressor, s)
        assert r.shape == t.shape
        found.append(
            torch.stack([(a - b) ** 2 for x, y in zip(r, t) for a, b in zip(x, y)])  # noqa: B905
        )
    return found


@pytest.mark.parametrize("pair", TAPS)
def test_agrees_with_loops(pair: str) -> None:
    case = exact_case("fitnet", pair, taps=TAPS[pair])
    assert_same(case, lambda: total([e.mean() for e in squares(case)]))


@pytest.mark.parametrize("pair", TAPS)
def test_paper(pair: str) -> None:
    case = exact_case("fitnet", pair, taps=TAPS[pair], variant="paper")
    assert not any("Norm" in type(m).__name__ for m in case.term.modules())
    assert_same(
        case,
        lambda: total([e.sum() / 2 / len(case.batch) for e in squares(case)]),
        lambda: case.term.pretrain_loss(case.student, case.teacher, case.batch),
    )
    assert case.loss() == 0
    plan = case.term.pretraining()
    assert plan is not None
    assert (plan.epochs, plan.lr, plan.optimizer) == (30, 0.005, "adam")
    assert "before the main phase" in case.term.symbol()


def test_golden() -> None:
    assert make_case("fitnet").loss().item() == pytest.approx(GOLDEN[0], rel=1e-5)
    case = make_case("fitnet", "mobilenet", variant="paper")
    found = case.term.pretrain_loss(case.student, case.teacher, case.batch)
    assert found.item() == pytest.approx(GOLDEN[1], rel=1e-5)


GOLDEN = (1.5350447, 2151.3716)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"pretrain_epochs=30, or use variant=repdistiller"):
        make_case("fitnet", variant="paper", pretrain_epochs=0)
    with pytest.raises(ConfigError, match="There are: repdistiller, paper"):
        make_case("fitnet", variant="xyz")
    with pytest.raises(ConfigError, match="has no tap 'stage3'"):
        make_case("fitnet", taps=["stage3"])
