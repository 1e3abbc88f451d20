"""Activation boundaries."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, maps, run_by_hand, total
from torch import Tensor, nn

from kdrun.errors import ConfigError


def by_hand(case: Case) -> Tensor:
    """The four cases of the hinge, as a table of masks."""
    m = case.term.margin
    losses = []
    for i, (connector, (s, t)) in enumerate(zip(case.term.connectors, maps(case), strict=True)):
        s = run_by_hand([connector], s)
        element = ((t > 0) & (s <= m)) * (s - m) ** 2 + ((t <= 0) & (s > -m)) * (s + m) ** 2
        weight = 2.0 ** (i + 1 - len(case.term.pairs))
        losses.append(weight * element.sum() / len(s) * 3 / 1000)
    return total(losses)


def before(case: Case) -> Tensor:
    return case.term.pretrain_loss(case.student, case.teacher, case.batch)


@pytest.mark.parametrize("variant", ["repdistiller", "paper"])
@pytest.mark.parametrize("pair", ["same", "cnn", "mlp", "mobilenet"])
def test_agrees_with_the_cases(pair: str, variant: str) -> None:
    case = exact_case("ab", pair, variant=variant, margin=0.7)
    assert_same(case, lambda: by_hand(case), lambda: before(case))
    beside = exact_case("ab", pair, variant=variant, pretrain_epochs=0)
    assert_same(beside, lambda: by_hand(beside))


def test_pretraining_in_float64_has_true_gradients() -> None:
    case = exact_case("ab", "cnn")
    taps = list(case.student.features)

    def value(*features: Tensor) -> Tensor:
        case.student.features = dict(zip(taps, features, strict=True))
        return before(case)

    assert torch.autograd.gradcheck(
        value, tuple(case.student.features.values()), fast_mode=True, atol=1e-6, rtol=1e-4
    )


def test_neurons_beyond_the_margin_rest() -> None:
    case = make_case("ab", "same")
    for name, features in case.teacher.features.items():
        case.student.features[name] = (3.0 * features.sign()).requires_grad_()
    assert before(case) == 0


def test_connectors() -> None:
    same = make_case("ab", "same").term.connectors
    assert all(isinstance(connector, nn.Identity) for connector in same)
    for connector in make_case("ab", "same", variant="paper").term.connectors:
        assert [type(layer).__name__ for layer in connector] == ["Conv2d", "AdapterNorm"]


def test_phases() -> None:
    case = make_case("ab", pretrain_epochs=4, pretrain_lr=0.5)
    plan = case.term.pretraining()
    assert plan is not None
    assert (plan.epochs, plan.lr, plan.optimizer) == (4, 0.5, "sgd")
    assert case.loss() == 0
    assert case.term.symbol() == "AB(stage1_pre+stage2_pre; before the main phase)"
    assert make_case("ab", pretrain_epochs=0).term.symbol() == "AB(stage1_pre+stage2_pre)"


def test_golden() -> None:
    assert before(make_case("ab")).item() == pytest.approx(GOLDEN[0], rel=1e-5)
    assert before(make_case("ab", "mobilenet")).item() == pytest.approx(GOLDEN[1], rel=1e-5)


GOLDEN = (0.6184572, 32.499611)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="margin=0 must be above 0"):
        make_case("ab", margin=0.0)
    with pytest.raises(ConfigError, match="There are: repdistiller, paper"):
        make_case("ab", variant="xyz")
