"""Semantic calibration."""

import pytest
import torch
from losses.cases import Case, make_case
from losses.map_cases import assert_same, exact_case, match_by_hand, run_by_hand, total
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.semckd import SemanticCalibration, gram

ROWS = 64  # the batch size that cases are built for


def direction(mlp: nn.Module, features: Tensor, n: int) -> Tensor:
    """The unit vector of image n: from its inner products with all images."""
    first, _, second = mlp
    row = [(features[n] * other).sum() for other in features]
    row += [torch.zeros_like(row[0])] * (ROWS - len(row))
    hidden = (first.weight * torch.stack(row)).sum(1) + first.bias
    out = (second.weight * torch.where(hidden > 0, hidden, 0.0)).sum(1) + second.bias
    return out / out.square().sum().sqrt()


def by_hand(case: Case) -> Tensor:
    term = case.term
    names = [list(dict.fromkeys(pair[side] for pair in term.pairs)) for side in (0, 1)]
    students = [_map(case.student.features[name]) for name in names[0]]
    teachers = [_map(case.teacher.features[name]) for name in names[1]]
    losses = []
    for i, s in enumerate(students):
        errors = []
        for j, t in enumerate(teachers):
            a, b = match_by_hand(s, t)
            errors.append((run_by_hand(term.bottlenecks[i * len(teachers) + j], a) - b) ** 2)
        for n in range(len(s)):
            query = direction(term.queries[i], s, n)
            energies = [
                (query * direction(term.keys[j], t, n)).sum() / term.softness
                for j, t in enumerate(teachers)
            ]
            weights = torch.stack(energies).exp()
            weights = weights / weights.sum()
            losses += [w * error[n].mean() for w, error in zip(weights, errors, strict=True)]
    return total(losses) / (len(students) * len(students[0]))


def _map(features: Tensor) -> Tensor:
    return features.reshape(*features.shape, *[1] * (4 - features.dim()))


@pytest.mark.parametrize("pair", ["cnn", "mlp"])
@pytest.mark.parametrize("settings", [{}, {"softness": 0.5}, {"taps": ["last_stage"]}], ids=str)
def test_agrees_with_loops(pair: str, settings: dict[str, object]) -> None:
    case = exact_case("semckd", pair, **settings)
    assert_same(case, lambda: by_hand(case))


def test_unlike_numbers_of_stages_are_all_crossed() -> None:
    term = make_case("semckd", "mobilenet").term
    assert (len(term.queries), len(term.keys), len(term.bottlenecks)) == (4, 3, 12)
    assert term.symbol() == "SemCKD(stage1+stage2+stage3+stage4 × stage1+stage2+stage3)"


def test_rows_are_filled_up_or_cut() -> None:
    features = torch.randn(3, 4)
    products = features @ features.T
    assert torch.equal(gram(features, 5), torch.cat([products, torch.zeros(3, 2)], dim=1))
    assert torch.equal(gram(features, 2), products[:, :2])


def test_golden() -> None:
    found = make_case("semckd", "mobilenet").loss()
    assert found.item() == pytest.approx(GOLDEN, rel=1e-5)


GOLDEN = 0.50999361


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="softness=0 must be above 0"):
        SemanticCalibration(softness=0.0)
    with pytest.raises(ConfigError, match="at least 1"):
        SemanticCalibration(reduction=0)
