"""Objectives with several teachers, against the formulas written out."""

import pytest
import torch
from losses.logit_cases import batch_of, gradient, softmax
from torch import Tensor

from kdrun.config.schema import EnsembleConfig, LossConfig
from kdrun.errors import ConfigError
from kdrun.losses.ensemble import Ensemble, mean_soft_targets
from kdrun.losses.objective import Objective, build_objective
from kdrun.types import Outputs

CLASSES = {
    "kd": ("kdrun.losses.kd.SoftTargets", {"temperature": 3.0}),
    "deit_hard": ("kdrun.losses.deit_hard.DeitHard", {}),
    "dkd": ("kdrun.losses.dkd.DecoupledDistillation", {"temperature": 3.0}),
    "sp": ("kdrun.losses.sp.SimilarityPreserving", {}),
    "kd_z": ("kdrun.losses.kd.SoftTargets", {"temperature": 3.0, "standardise": True}),
}
ALPHA = 0.7


def objective(loss: str, average: str, weights: list[float]) -> Objective:
    target, settings = CLASSES[loss]
    terms = {loss: LossConfig(loss, target, ALPHA, settings)}
    ensemble = Ensemble.of(EnsembleConfig(average, weights), len(weights))
    return build_objective(terms, None, None, None, None, ensemble)


def logits(teachers: int) -> tuple[Tensor, list[Tensor], Tensor]:
    draw = torch.Generator().manual_seed(0)

    def one() -> Tensor:
        return 3 * torch.randn((5, 6), generator=draw, dtype=torch.float64)

    return one(), [one() for _ in range(teachers)], torch.randint(6, (5,), generator=draw)


def cross_entropy(student: Tensor, label: int, temperature: float = 1.0) -> Tensor:
    return -softmax(student, temperature)[label].log()


def soft(student: Tensor, teachers: list[Tensor], targets: Tensor, shares: list[float]) -> Tensor:
    """(1-α)·CE + α·T²·Σ share_i·KL(p_i ‖ p_s), averaged over the images."""
    total = torch.zeros((), dtype=torch.float64)
    for n, row in enumerate(student):
        total = total + (1 - ALPHA) * cross_entropy(row, int(targets[n]))
        q = softmax(row, 3.0)
        for share, teacher in zip(shares, teachers, strict=True):
            for c, p in enumerate(softmax(teacher[n], 3.0)):
                total = total + share * ALPHA * 9 * p * (p / q[c]).log()
    return total / len(student)


def hard(student: Tensor, teachers: list[Tensor], targets: Tensor, shares: list[float]) -> Tensor:
    """(1-α)·CE + α·Σ share_i·CE(student, argmax z_i), averaged over the images."""
    total = torch.zeros((), dtype=torch.float64)
    for n, row in enumerate(student):
        total = total + (1 - ALPHA) * cross_entropy(row, int(targets[n]))
        for share, teacher in zip(shares, teachers, strict=True):
            best = max(range(6), key=lambda c, z=teacher[n]: float(z[c]))  # type: ignore[misc]
            total = total + share * ALPHA * cross_entropy(row, best)
    return total / len(student)


def of_the_mean(
    student: Tensor, teachers: list[Tensor], targets: Tensor, shares: list[float]
) -> Tensor:
    """(1-α)·CE + α·T²·KL(Σ share_i·p_i ‖ p_s), averaged over the images."""
    total = torch.zeros((), dtype=torch.float64)
    for n, row in enumerate(student):
        total = total + (1 - ALPHA) * cross_entropy(row, int(targets[n]))
        rows = [softmax(teacher[n], 3.0) for teacher in teachers]
        for c, q in enumerate(softmax(row, 3.0)):
            p = sum(share * one[c] for share, one in zip(shares, rows, strict=True))
            total = total + ALPHA * 9 * p * (p / q).log()
    return total / len(student)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 1.0], [1.0, 1.0, 1.0], [2.0, 1.0, 5.0]])
@pytest.mark.parametrize(
    ("loss", "average", "reference"),
    [
        ("kd", "terms", soft),
        ("deit_hard", "terms", hard),
        ("kd", "soft_targets", of_the_mean),
    ],
)
def test_value_and_gradient_equal_the_formula(loss, average, reference, weights) -> None:  # type: ignore[no-untyped-def]
    student, teachers, targets = logits(len(weights))
    one, two = (student.clone().requires_grad_() for _ in range(2))
    found, _ = objective(loss, average, weights)(
        Outputs(one), [Outputs(z) for z in teachers], batch_of(targets)
    )
    expected = reference(two, teachers, targets, [w / sum(weights) for w in weights])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient(found, one), gradient(expected, two))


def test_the_means_hard_label_is_the_class_of_the_largest_mean_probability() -> None:
    confident, unsure = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.2, 0.0]])
    student = torch.tensor([[0.3, 0.1, 0.5]], dtype=torch.float64)
    term = objective("deit_hard", "soft_targets", [1.0, 1.0, 1.0])
    teachers = [Outputs(z.double()) for z in (confident, unsure, unsure)]
    _, parts = term(Outputs(student), teachers, batch_of(torch.tensor([2])))
    # two of three answer 1, the mean of the probabilities is largest at 0
    torch.testing.assert_close(parts["deit_hard"], cross_entropy(student[0], 0))


def test_a_mean_of_one_teachers_targets_is_that_teacher() -> None:
    _, (teacher,), _ = logits(1)
    found = mean_soft_targets([teacher], [1.0], 3.0)
    torch.testing.assert_close((found / 3).softmax(dim=1), (teacher / 3).softmax(dim=1))


@pytest.mark.parametrize("loss", ["sp", "kd_z"])
def test_a_loss_that_reads_more_than_probabilities_rejects_their_mean(loss: str) -> None:
    with pytest.raises(ConfigError, match=r"use teacher\.average=terms"):
        objective(loss, "soft_targets", [1.0, 1.0])
    assert objective(loss, "terms", [1.0, 1.0]).ensemble.targets == 2


def test_a_weight_for_each_teacher() -> None:
    with pytest.raises(ConfigError, match="has 2 values for 3 teachers"):
        Ensemble.of(EnsembleConfig(weights=[1.0, 2.0]), 3)
    assert Ensemble.of(EnsembleConfig(weights=[2.0, 6.0]), 2).shares == (0.25, 0.75)


@pytest.mark.parametrize(
    ("average", "weights", "text"),
    [
        ("terms", [1.0], "0.3*CE + 0.7*9*KL(T=3)"),
        ("terms", [1.0, 1.0], "0.3*CE + 0.7*9*KL(T=3); each term averaged over 2 teachers"),
        (
            "soft_targets",
            [1.0, 3.0],
            "0.3*CE + 0.7*9*KL(T=3); soft targets averaged over 2 teachers weighing 0.25, 0.75",
        ),
    ],
)
def test_the_printed_objective_says_how(average: str, weights: list[float], text: str) -> None:
    assert objective("kd", average, weights).describe() == text
