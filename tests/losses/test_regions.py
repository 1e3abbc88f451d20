"""Losses on the logits of regions of the last map (`regions` of kd, dkd and nkd)."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from losses.cases import make_case
from losses.logit_cases import divergence, softmax
from losses.map_cases import exact_case
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses import DKD, KD, NKD
from kdrun.losses.regions import disagreement, to_grid
from kdrun.types import Mixture

T = 2.0
LOSSES = {"kd": KD, "dkd": DKD, "nkd": NKD}


def kd(s: Tensor, t: Tensor, y: int) -> Tensor:
    return T**2 * divergence(softmax(t, T), softmax(s, T))


def dkd(s: Tensor, t: Tensor, y: int) -> Tensor:
    others = [c for c in range(len(s)) if c != y]
    p, q = softmax(t, T)[y], softmax(s, T)[y]
    binary = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return T**2 * (binary + 8 * divergence(softmax(t[others], T), softmax(s[others], T)))


def nkd(s: Tensor, t: Tensor, y: int) -> Tensor:
    others = [c for c in range(len(s)) if c != y]
    pairs = zip(softmax(t[others], T), softmax(s[others], T), strict=True)
    rest = sum(p * q.log() for p, q in pairs)
    return -softmax(t)[y] * softmax(s)[y].log() - 1.5 * T**2 * rest


ROWS = {"kd": kd, "dkd": dkd, "nkd": nkd}


def by_hand(
    row_loss: Callable[[Tensor, Tensor, int], Tensor],
    maps: tuple[Tensor, Tensor],
    layers: tuple[nn.Linear, nn.Linear],
    logits: tuple[Tensor, Tensor],
    targets: Tensor,
    regions: list[int],
) -> Tensor:
    """Regions of each image in loops; sides divisible by every region."""
    total, count = torch.zeros(()).double(), sum(r * r for r in regions) * len(targets)
    for n, y in enumerate(targets.tolist()):
        right = int(logits[1][n].argmax()) == y
        for r in regions:
            for i in range(r):
                for j in range(r):
                    rows = []
                    for features, layer in zip(maps, layers, strict=True):
                        h, w = (side // r for side in features.shape[2:])
                        part = features[n, :, i * h : (i + 1) * h, j * w : (j + 1) * w]
                        rows.append(layer.weight @ part.mean(dim=(1, 2)) + layer.bias)
                    if r == 1:
                        rows = [logits[0][n], logits[1][n]]
                    double = r > 1 and (int(rows[1].argmax()) == y) != right
                    total = total + (1 + double) * row_loss(rows[0], rows[1], y)
    return total / count


@pytest.mark.parametrize("loss", list(LOSSES))
def test_regions_equal_the_loops(loss: str) -> None:
    case = exact_case(loss, batch=5, temperature=T, regions=[1, 2])
    ((s_tap, t_tap),) = case.term.pairs
    layers = tuple(layer.double() for layer in case.term._classifiers)
    maps = case.student.features[s_tap], case.teacher.features[t_tap]
    assert {side for each in maps for side in each.shape[2:]} <= {2, 4}
    logits = case.student.logits, case.teacher.logits
    wanted = [*case.inputs(), layers[0].weight, layers[0].bias]
    wanted = [tensor for tensor in wanted if tensor is not case.student.embedding]
    found = case.loss()
    expected = by_hand(ROWS[loss], maps, layers, logits, case.batch.targets, [1, 2])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    for a, b in zip(
        torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)
    assert layers[1].weight.grad is None


@pytest.mark.parametrize("loss", list(LOSSES))
def test_one_region_is_the_plain_loss_bit_for_bit(loss: str) -> None:
    plain, one = (make_case(loss, regions=regions) for regions in (None, [1]))
    assert torch.equal(plain.loss(), one.loss())
    assert plain.term.pairs == one.term.pairs == []
    assert one.term.reads_labels == (loss != "kd")
    assert one.term.symbol() == plain.term.symbol()


def test_a_criterion_takes_maps_and_both_classifiers() -> None:
    torch.manual_seed(0)
    layers = {"student_classifier": nn.Linear(3, 5), "teacher_classifier": nn.Linear(4, 5)}
    student, teacher = torch.randn(6, 3, 4, 4, requires_grad=True), torch.randn(6, 4, 8, 8)
    targets = torch.arange(6) % 5
    loss = KD(T, regions=[1, 2, 4], **layers)
    value = loss(student, teacher, targets)
    maps = student.detach().double(), teacher.double()
    doubled = tuple(layer.double() for layer in layers.values())
    logits = tuple(layer(each.mean(dim=(2, 3))) for each, layer in zip(maps, doubled, strict=True))
    expected = by_hand(kd, maps, doubled, logits, targets, [1, 2, 4])
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.symbol() == "4*KL(T=2, regions=1+2+4)"
    assert loss.target_temperature() is None
    with pytest.raises(ConfigError, match=r"loss.kd.regions needs both classifiers: pass them"):
        KD(regions=[1, 2])(student, teacher, targets)


def test_disagreement_with_the_whole_image_counts_double() -> None:
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    logits = torch.tensor([[right, wrong], [wrong, wrong], [right, right]])
    assert disagreement(logits, torch.tensor([0, 0])).tolist() == [[1, 1], [2, 1], [1, 2]]


def test_a_smaller_map_repeats_its_places() -> None:
    features = torch.arange(4.0).view(1, 1, 2, 2)
    assert to_grid(features, 4)[0, 0].tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    odd = torch.arange(49.0).view(1, 1, 7, 7)
    assert to_grid(odd, 1).item() == pytest.approx(24)
    assert to_grid(odd, 2)[0, 0, 0, 0].item() == pytest.approx(odd[0, 0, :4, :4].mean().item())


def test_mixed_images_count_by_their_shares() -> None:
    case = make_case("nkd", regions=[1, 2])
    second = case.batch.targets.flip(0)
    other = replace(case.batch, targets=second)
    mixed = replace(case.batch, mixture=Mixture(second, torch.full((6,), 0.3)))
    first = case.loss()
    values = [case.term(case.student, case.teacher, batch) for batch in (other, mixed)]
    torch.testing.assert_close(values[1], 0.3 * first + 0.7 * values[0])


def test_refusals() -> None:
    for regions in ([2, 4], [1, 4, 2], [1, 1], [], 2, "124", [1, 2.5], [1, "2"], [True, 2]):
        with pytest.raises(ConfigError, match=r"must be whole numbers that start with 1"):
            DKD(regions=regions)
    with pytest.raises(ConfigError, match=r"loss.kd.regions needs a student that averages"):
        make_case("kd", "mlp", regions=[1, 2])
    with pytest.raises(ConfigError, match=r"are finer than the last maps .*: leave out the last"):
        make_case("kd", regions=[1, 2, 16])


def test_frozen_values() -> None:
    layers = [nn.Linear(3, 4).double(), nn.Linear(5, 4).double()]
    for number, layer in enumerate(layers):
        for place, parameter in enumerate(layer.parameters()):
            with torch.no_grad():
                values = torch.sin(torch.arange(parameter.numel()) + number + 3.0 * place)
                parameter.copy_(values.view_as(parameter))
    student, teacher = (
        3 * torch.sin(1.7 * torch.arange(4 * d * 16).double()).view(4, d, 4, 4) for d in (3, 5)
    )
    targets = torch.arange(4)
    for name, expected in FROZEN.items():
        loss = LOSSES[name](
            regions=[1, 2, 4], student_classifier=layers[0], teacher_classifier=layers[1]
        )
        found = loss(student, teacher, targets).item()
        assert math.isfinite(found)
        assert found == pytest.approx(expected, rel=1e-9)


FROZEN = {"kd": 3.393020789853393, "dkd": 26.166987879609223, "nkd": 5.06309656096716}
