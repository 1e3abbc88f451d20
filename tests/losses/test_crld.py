"""Cross-view consistency: KL within and across two views, where the teacher is confident."""

import pytest
import torch
from losses.logit_cases import assert_golden, batch_of, divergence, random_logits, softmax
from torch import Tensor

from kdrun.losses.crld import CrossViewConsistency
from kdrun.losses.kd import SoftTargets
from kdrun.types import Batch, Outputs


def views(shape: tuple[int, int]) -> tuple[Outputs, Outputs, Batch]:
    (weak, teacher, targets), (strong, teacher_strong, _) = (
        random_logits(shape, seed) for seed in (0, 1)
    )
    return (
        Outputs(weak, strong=Outputs(strong)),
        Outputs(teacher, strong=Outputs(teacher_strong)),
        batch_of(targets),
    )


@pytest.mark.parametrize("shape", [(6, 10), (4, 100), (5, 2)])
def test_equal_to_the_loop(shape: tuple[int, int]) -> None:
    student, teacher, batch = views(shape)
    assert student.strong is not None
    assert teacher.strong is not None
    total = torch.zeros((), dtype=torch.float64)

    def kl(target: Tensor, guess: Tensor) -> Tensor:
        return 16 * divergence(softmax(target, 4.0), softmax(guess, 4.0))

    for number, label in enumerate(batch.targets.tolist()):
        s_weak, s_strong = student.logits[number], student.strong.logits[number]
        t_weak, t_strong = teacher.logits[number], teacher.strong.logits[number]
        if max(softmax(t_weak)) >= 0.9:
            total = total + 2 * (kl(t_weak, s_weak) + kl(t_strong, s_strong))
        if max(softmax(t_strong)) >= 0.2:
            total = total + 0.5 * (kl(t_weak, s_strong) + kl(t_strong, s_weak))
        total = total - softmax(s_strong)[label].log()
    found = CrossViewConsistency()(student, teacher, batch)
    torch.testing.assert_close(found, total / shape[0])


def test_without_thresholds_and_cross_views_it_is_kd_on_both_views() -> None:
    student, teacher, batch = views((6, 10))
    assert student.strong is not None
    assert teacher.strong is not None
    loss = CrossViewConsistency(
        within=1.0, across=0.0, weak_threshold=0.0, strong_threshold=0.0, strong_ce=0.0
    )
    expected = SoftTargets(4.0)(student, teacher, batch) + SoftTargets(4.0)(
        student.strong, teacher.strong, batch
    )
    torch.testing.assert_close(loss(student, teacher, batch), expected)
    assert not loss.reads_labels


def test_an_unsure_teacher_teaches_nothing() -> None:
    student, _, batch = views((6, 10))
    flat = Outputs(torch.zeros(6, 10), strong=Outputs(torch.zeros(6, 10)))
    assert float(CrossViewConsistency(strong_ce=0.0)(student, flat, batch)) == 0.0


def test_frozen_value() -> None:
    assert_golden(CrossViewConsistency(), 11.81443)
