"""Distillation tokens: which head each teacher acts on, and the loss of n teachers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from losses.logit_cases import batch_of, softmax
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.base import LossContext, NetworkView
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.deit_hard import DeitHard
from kdrun.losses.deit_soft import DeitSoft
from kdrun.losses.kd import SoftTargets
from kdrun.losses.tokens import TokenLoss
from kdrun.types import Outputs

B, C = 6, 5
NOTHING = NetworkView(nn.Identity(), {})
CONTEXT = LossContext(C, 10, torch.zeros(10, dtype=torch.int64), B, 0, NOTHING, NOTHING)


def random(seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(B, C, generator=draw)).requires_grad_()


def student_with(tokens: int) -> Outputs:
    return Outputs(random(0), distillation=tuple(random(i) for i in range(1, tokens + 1)))


def built(make: Any, student: Outputs, position: int, teachers: int) -> TokenLoss:
    term: TokenLoss = make()
    term.build(student, student, replace(CONTEXT, position=position, teachers=teachers))
    return term


def written_out(make: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """The term in float64 loops."""
    total = torch.zeros((), dtype=torch.float64)
    for s, t in zip(student, teacher, strict=True):
        if make is DeitHard:
            total = total - softmax(s)[int(t.argmax())].log()
        else:
            p, q = softmax(t, 3.0), softmax(s, 3.0)
            for c in range(C):
                total = total + 9.0 * p[c] * (p[c] / q[c]).log() / C
    return total / B


@pytest.mark.parametrize("make", [DeitHard, DeitSoft])
@pytest.mark.parametrize(("tokens", "teachers"), [(0, 1), (1, 1), (0, 3), (1, 3), (3, 3)])
@pytest.mark.parametrize("alpha", [0.5, 0.3])
def test_the_objective_of_n_teachers(make: Any, tokens: int, teachers: int, alpha: float) -> None:
    """L = (1 - α) CE(class head) + α/n Σ_i term(head of teacher i, teacher i)."""
    student = student_with(tokens)
    said = [Outputs(random(100 + i).detach()) for i in range(teachers)]
    batch = batch_of(torch.arange(B) % C)
    terms = [built(make, student, i, teachers) for i in range(teachers)]
    values = [t(student, teacher, batch) for t, teacher in zip(terms, said, strict=True)]
    found = (1 - alpha) * CrossEntropy()(student, student, batch)
    found = found + alpha * torch.stack(values).mean()

    heads = [student.logits] * teachers if tokens == 0 else list(student.distillation) * teachers
    expected = torch.zeros((), dtype=torch.float64)
    for s, label in zip(student.logits, batch.targets, strict=True):
        expected = expected - (1 - alpha) * softmax(s)[label].log() / B
    for head, teacher in zip(heads, said, strict=False):
        expected = expected + alpha / teachers * written_out(make, head, teacher.logits)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    inputs = [student.logits, *student.distillation]
    gradients = torch.autograd.grad(found, inputs)
    for mine, other in zip(gradients, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_a_token_learns_from_its_teacher_alone() -> None:
    student = student_with(2)
    for make in (DeitHard, DeitSoft):
        term = built(make, student, 1, 2)
        value = term(student, Outputs(random(9).detach()), batch_of(torch.zeros(B).long()))
        inputs = [student.logits, *student.distillation]
        gradients = torch.autograd.grad(value, inputs, allow_unused=True)
        assert [gradient is not None for gradient in gradients] == [False, False, True]


def test_soft_targets_act_on_the_class_head() -> None:
    student, teacher = student_with(2), Outputs(random(9).detach())
    batch = batch_of(torch.zeros(B).long())
    plain = SoftTargets()(Outputs(student.logits), teacher, batch)
    assert torch.equal(SoftTargets()(student, teacher, batch), plain)


def test_half_precision_heads_are_computed_in_full() -> None:
    student = student_with(1)
    half = Outputs(student.logits, distillation=(student.distillation[0].bfloat16(),))
    value = built(DeitHard, half, 0, 1)(half, Outputs(random(9)), batch_of(torch.zeros(B).long()))
    assert value.dtype == torch.float32


@pytest.mark.parametrize(
    ("tokens", "teachers", "message"),
    [
        (2, 1, r"distillation_tokens=2 does not fit one teacher.*: .*distillation_tokens=1\.$"),
        (2, 3, r"does not fit 3 teachers: .*tokens=3 \(one for each\) or 1 \(shared\)"),
        (3, 2, r"does not fit 2 teachers"),
    ],
)
def test_other_counts_are_refused(tokens: int, teachers: int, message: str) -> None:
    for make in (DeitHard, DeitSoft):
        with pytest.raises(ConfigError, match=message):
            built(make, student_with(tokens), 0, teachers)
