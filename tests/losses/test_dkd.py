"""Decoupled distillation: the label's class against the rest, and the rest among themselves."""

import pytest
import torch
from losses.cases import make_objective
from losses.logit_cases import (
    SHAPES,
    assert_equals,
    assert_golden,
    batch_of,
    divergence,
    random_logits,
    softmax,
    z_scores,
)
from torch import Tensor

from kdrun.losses.dkd import DecoupledDistillation
from kdrun.losses.kd import SoftTargets
from kdrun.types import Outputs


def reference(alpha: float, beta: float, standardised: bool = False):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t, y in zip(student, teacher, targets.tolist(), strict=True):
            if standardised:
                s, t = z_scores(s), z_scores(t)
            p, q = softmax(s, 4.0), softmax(t, 4.0)
            rest_p, rest_q = p[:y] + p[y + 1 :], q[:y] + q[y + 1 :]
            own = divergence([q[y], 1 - q[y]], [p[y], 1 - p[y]])
            others = divergence(
                [value / sum(rest_q) for value in rest_q], [value / sum(rest_p) for value in rest_p]
            )
            total = total + alpha * own + beta * others
        return 16.0 * total / len(student)

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weights", [(1.0, 8.0), (1.0, 0.0), (0.0, 1.0)])
def test_it_equals_the_sum_written_out(
    shape: tuple[int, int], weights: tuple[float, float]
) -> None:
    assert_equals(DecoupledDistillation(4.0, *weights), reference(*weights), shape)


def test_z_scores_can_be_compared_instead() -> None:
    term = DecoupledDistillation(standardise=True)
    assert_equals(term, reference(1.0, 8.0, True), SHAPES[0])


def test_two_classes_leave_the_binary_divergence() -> None:
    student, teacher, targets = random_logits((5, 2))
    case = Outputs(student), Outputs(teacher), batch_of(targets)
    torch.testing.assert_close(DecoupledDistillation()(*case), SoftTargets(4.0)(*case))
    assert float(DecoupledDistillation(alpha=0.0)(*case)) == 0.0


def test_kd_is_the_sum_with_the_teachers_doubt_as_weight() -> None:
    """KL = TCKD + (1 - p_t,y) · NCKD, image by image."""
    student, teacher, targets = random_logits((1, 7))
    case = Outputs(student), Outputs(teacher), batch_of(targets)
    doubt = 1 - float(torch.softmax(teacher / 4.0, dim=1)[0, targets[0]])
    term = DecoupledDistillation(4.0, 1.0, doubt)
    torch.testing.assert_close(term(*case), SoftTargets(4.0)(*case))


def test_frozen_numbers() -> None:
    assert_golden(DecoupledDistillation(), 30.08042)
    assert_golden(DecoupledDistillation(standardise=True), 5.901455)


def test_extreme_logits_keep_the_formula() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]])
    case = Outputs(student), Outputs(student.flip(1)), batch_of(torch.tensor([1]))
    assert torch.isfinite(DecoupledDistillation()(*case))
    assert float(DecoupledDistillation()(case[0], case[0], case[2])) == 0.0


def test_its_weight_is_full_in_epoch_20() -> None:
    weighted = make_objective("dkd").weighted["dkd"]
    factors = [weighted.factor(epoch, 240) for epoch in (0, 9, 19, 200)]
    assert factors == pytest.approx([0.05, 0.5, 1.0, 1.0])
