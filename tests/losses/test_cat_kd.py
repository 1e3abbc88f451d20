"""Class attention transfer: activation maps, their gradient to the student's classifier."""

import pytest
import torch
from losses.cases import make_case
from losses.map_cases import exact_case, pool_by_hand
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses import CATKD


def maps(classifier: nn.Linear, features: Tensor, resolution: int) -> Tensor:
    scores = torch.einsum("cd,bdhw->bchw", classifier.weight, features)
    return pool_by_hand(scores, (resolution, resolution))


@pytest.mark.parametrize("resolution", [1, 2])
@pytest.mark.parametrize("normalise", [False, True])
def test_equal_to_the_maps_written_out(resolution: int, normalise: bool) -> None:
    case = exact_case("cat_kd", resolution=resolution, normalise=normalise)
    (student_tap, teacher_tap) = case.term.pairs[0]
    student_fc, teacher_fc = (layer.double() for layer in case.term._classifiers)
    own, target = case.student.features[student_tap], case.teacher.features[teacher_tap]

    def expected() -> Tensor:
        both = maps(student_fc, own, resolution), maps(teacher_fc, target, resolution)
        if normalise:
            both = tuple(m / m.square().sum(dim=(2, 3), keepdim=True).sqrt() for m in both)
        return ((both[0] - both[1].detach()) ** 2).mean()

    wanted = [own, student_fc.weight]
    for value, same in zip(
        torch.autograd.grad(case.loss(), wanted),
        torch.autograd.grad(expected(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(value, same)
    torch.testing.assert_close(case.loss(), expected())
    assert teacher_fc.weight.grad is None


def test_the_averages_of_the_maps_are_the_logits_without_bias() -> None:
    """At resolution 1 the loss compares logits: maps are linear in the features."""
    case = exact_case("cat_kd", resolution=1)
    (student_tap, teacher_tap) = case.term.pairs[0]
    student_fc, teacher_fc = (layer.double() for layer in case.term._classifiers)
    logits = case.student.features[student_tap].mean(dim=(2, 3)) @ student_fc.weight.T
    targets = case.teacher.features[teacher_tap].mean(dim=(2, 3)) @ teacher_fc.weight.T
    torch.testing.assert_close(case.loss(), (logits - targets).square().mean())


def test_binarised_maps_are_averages_of_zeros_and_ones() -> None:
    fc = nn.Linear(3, 4, bias=False)
    loss = CATKD(resolution=1, binarise=True, student_classifier=fc, teacher_classifier=fc)
    student, teacher = torch.zeros(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    scores = torch.einsum("cd,bdhw->bchw", fc.weight, teacher)
    above = (scores > scores.abs().mean(dim=(2, 3), keepdim=True)).float().mean(dim=(2, 3))
    torch.testing.assert_close(loss(student, teacher), above.square().mean())


def test_a_criterion_needs_the_classifiers() -> None:
    with pytest.raises(ConfigError, match=r"CATKD\(student_classifier=student.fc"):
        CATKD()(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 4, 4))


def test_a_student_without_a_map_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs a student that averages a feature map of more"):
        make_case("cat_kd", "mlp")


def test_frozen_value() -> None:
    layers = [nn.Linear(3, 4).double(), nn.Linear(5, 4).double()]
    for number, layer in enumerate(layers):
        with torch.no_grad():
            values = torch.sin(torch.arange(layer.weight.numel()) + number)
            layer.weight.copy_(values.view_as(layer.weight))
    student, teacher = (
        torch.sin(1.7 * torch.arange(2 * d * 16).double()).view(2, d, 4, 4) for d in (3, 5)
    )
    loss = CATKD(student_classifier=layers[0], teacher_classifier=layers[1])
    assert float(loss(student, teacher)) == pytest.approx(0.3643546700944488, rel=1e-6)
