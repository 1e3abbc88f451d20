"""Logits to put into losses that read nothing else, and the comparison with a reference."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kdrun.losses.base import DistillationLoss
from kdrun.types import Batch, Outputs

# (batch, classes): digits-like, CIFAR-100-like, two classes, a single image
SHAPES = [(6, 10), (4, 100), (5, 2), (1, 7)]

Reference = Callable[[Tensor, Tensor, Tensor], Tensor]


def batch_of(targets: Tensor) -> Batch:
    """A batch with these labels and no images."""
    return Batch(torch.empty(0), targets, torch.arange(len(targets)))


def random_logits(shape: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """(student's, teacher's, labels), in float64."""
    draw = torch.Generator().manual_seed(seed)
    student = 3 * torch.randn(shape, generator=draw, dtype=torch.float64)
    teacher = 4 * torch.randn(shape, generator=draw, dtype=torch.float64)
    return student, teacher, torch.randint(shape[1], (shape[0],), generator=draw)


def fixed_logits(rows: int = 4, classes: int = 5) -> tuple[Outputs, Outputs, Batch]:
    """Logits by a formula, the same everywhere, for frozen numbers; the strong view as well."""

    def wave(phase: float) -> Tensor:
        return 3 * torch.sin(1.7 * torch.arange(rows * classes) + phase).view(rows, classes)

    student = Outputs(wave(0.3), strong=Outputs(wave(1.1)))
    teacher = Outputs(wave(2.0), strong=Outputs(wave(2.9)))
    return student, teacher, batch_of(torch.arange(rows) * 2 % classes)


def assert_golden(term: DistillationLoss, expected: float) -> None:
    """The term's value on the fixed logits is the frozen number."""
    assert float(term(*fixed_logits())) == pytest.approx(expected, rel=1e-5)


def assert_equals(term: DistillationLoss, reference: Reference, shape: tuple[int, int]) -> None:
    """Value and gradient equal the reference's, in float64 and in float32."""
    student, teacher, targets = random_logits(shape)
    one, two = (student.clone().requires_grad_() for _ in range(2))
    found = term(Outputs(one), Outputs(teacher), batch_of(targets))
    expected = reference(two, teacher, targets)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, one), gradient(expected, two))
    small = term(Outputs(student.float()), Outputs(teacher.float()), batch_of(targets))
    torch.testing.assert_close(small, expected.detach().float(), rtol=1e-4, atol=1e-5)


def gradient(value: Tensor, of: Tensor) -> Tensor:
    """The gradient, zeros where the value does not depend on it."""
    if not value.requires_grad:
        return torch.zeros_like(of)
    (found,) = torch.autograd.grad(value, of, allow_unused=True)
    return torch.zeros_like(of) if found is None else found


def softmax(row: Tensor, temperature: float = 1.0) -> list[Tensor]:
    """Probabilities of one image, written out."""
    powers = [(value / temperature).exp() for value in row]
    return [power / sum(powers) for power in powers]


def divergence(p: list[Tensor], q: list[Tensor]) -> Tensor:
    """KL(p ‖ q) of two lists of probabilities."""
    return sum((a * (a / b).log() for a, b in zip(p, q, strict=True)), torch.zeros(()).double())


def z_scores(row: Tensor) -> Tensor:
    """A row less its mean over its deviation, written out."""
    mean = sum(row) / len(row)
    variance = sum((value - mean) ** 2 for value in row) / (len(row) - 1)
    return torch.stack([(value - mean) / (variance.sqrt() + 1e-7) for value in row])
