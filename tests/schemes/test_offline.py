"""The offline scheme: who gets gradients, who changes, what the loss is made of."""

from typing import Any

import pytest
import torch
from torch import nn

from kdrun.config.schema import LossConfig
from kdrun.losses.ensemble import Ensemble
from kdrun.losses.kd import soft_target_loss
from kdrun.losses.objective import Objective, build_objective
from kdrun.models.cnn import ConvNet
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.offline import Offline
from kdrun.types import Batch

KD = LossConfig("kd", "kdrun.losses.kd.SoftTargets", 0.9, {"temperature": 4.0})


def network(widths: list[int], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ConvNet(num_classes=5, in_channels=1, widths=widths)


def batch(size: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(size, 1, 8, 8, generator=draw)
    return Batch(images, torch.randint(5, (size,), generator=draw), torch.arange(size))


def objective(**changes: Any) -> Objective:
    settings = {"T": None, "alpha": None, "ce": None, **changes}
    return build_objective({"kd": KD}, **settings)


@pytest.fixture
def scheme() -> Offline:
    student, teacher = FeatureExtractor(network([4], 0)), FeatureExtractor(network([8], 1))
    return Offline(student, [teacher], objective())


def test_the_loss_is_the_weighted_sum(scheme: Offline) -> None:
    torch.manual_seed(0)
    found = scheme(batch())
    (teacher,) = scheme.teacher_outputs(batch())
    ce = nn.functional.cross_entropy(found.logits, batch().targets)
    expected = 0.1 * ce + 0.9 * soft_target_loss(found.logits, teacher.logits, 4.0)
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(sum(found.groups.values()), found.loss)
    assert set(found.parts) == {"ce", "kd", "ce_weighted", "kd_weighted"}
    assert not any(part.requires_grad for part in found.parts.values())


def test_the_teacher_stays_in_eval_mode_and_unchanged(scheme: Offline) -> None:
    (teacher,) = scheme._teachers
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    scheme.train()
    scheme(batch()).loss.backward()
    assert not teacher.training
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_the_teacher_is_neither_trained_nor_saved(scheme: Offline) -> None:
    students = sum(p.numel() for p in scheme.student.network.parameters())
    assert sum(p.numel() for p in scheme.parameters()) == students
    assert set(scheme.state_dict()) == set(scheme.student.state_dict(prefix="student."))


def test_every_student_parameter_gets_a_gradient(scheme: Offline) -> None:
    scheme(batch()).loss.backward()
    assert all(p.grad is not None for p in scheme.student.network.parameters())


def test_several_teachers_are_averaged() -> None:
    student = FeatureExtractor(network([4], 0))
    teachers = [FeatureExtractor(network([8], seed)) for seed in (1, 2, 3)]
    found = Offline(student, teachers, objective(alpha=1.0, ensemble=Ensemble((1 / 3,) * 3)))(
        batch()
    )
    losses = [soft_target_loss(found.logits, t(batch().images).logits, 4.0) for t in teachers]
    torch.testing.assert_close(found.loss, torch.stack(losses).mean())
