"""DeiT's soft distillation: the divergence, reduced as the paper or as the code does."""

import pytest
import torch
from losses.logit_cases import (
    SHAPES,
    assert_equals,
    assert_golden,
    divergence,
    fixed_logits,
    softmax,
)
from torch import Tensor

from kdrun.errors import ConfigError
from kdrun.losses.deit_soft import DeitSoft
from kdrun.losses.kd import SoftTargets


def reference(variant: str):  # type: ignore[no-untyped-def]
    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for s, t in zip(student, teacher, strict=True):
            total = total + divergence(softmax(t, 3.0), softmax(s, 3.0))
        return 9.0 * total / (student.numel() if variant == "code" else len(student))

    return loss


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_it_equals_the_sum_written_out(shape: tuple[int, int], variant: str) -> None:
    assert_equals(DeitSoft(3.0, variant), reference(variant), shape)


def test_the_papers_form_is_kd() -> None:
    case = fixed_logits()
    torch.testing.assert_close(DeitSoft(4.0, "paper")(*case), SoftTargets(4.0)(*case))
    torch.testing.assert_close(5 * DeitSoft(4.0)(*case), SoftTargets(4.0)(*case))


def test_frozen_numbers() -> None:
    assert_golden(DeitSoft(), 0.8712991)
    assert_golden(DeitSoft(variant="paper"), 4.356496)


def test_unknown_variants_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.deit_soft\.variant=timm"):
        DeitSoft(variant="timm")


def test_its_symbol_says_how_it_is_reduced() -> None:
    assert DeitSoft().symbol() == "9*KL(T=3)/C"
    assert DeitSoft(variant="paper").symbol() == "9*KL(T=3)"
