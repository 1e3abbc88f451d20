"""One for all: targets and exits in loops, exits for maps, tokens and units."""

import math

import pytest
import torch
from losses.map_cases import assert_same, exact_case
from torch import Tensor, nn
from torch.nn import functional as F

import kdrun
from kdrun.errors import ConfigError
from kdrun.losses import OFA
from kdrun.losses.exits import PatchMerging, TransformerExit, convolutional_exit, make_exit
from kdrun.models.vit import VisionTransformer


def target_loss_in_loops(
    z: Tensor, teacher: Tensor, targets: Tensor, eps: float, t: float
) -> Tensor:
    total = torch.zeros((), dtype=z.dtype)
    for n, y in enumerate(targets.tolist()):
        p_t = [math.exp(float(v) / t) for v in teacher[n]]
        e_s = [torch.exp(v / t) for v in z[n]]
        for c in range(z.shape[1]):
            label = 1.0 if c == y else 0.0
            weight = (p_t[c] / sum(p_t) + label) ** eps - label
            total = total - weight * torch.log(e_s[c] / torch.stack(e_s).sum())
    return total / len(z)


def value_of(loss: OFA, student: Tensor, teacher: Tensor, label: int | None = None) -> float:
    """Of logits `[B, C]`, a map of noise, and one label or the labels 0, 1, 2, ..."""
    count = torch.arange(len(student))
    targets = count % student.shape[1] if label is None else torch.full_like(count, label)
    features = torch.randn(len(student), 3, 4, 4).to(student.dtype)
    return float(loss([features, student], teacher, targets).detach())


def exit_by_layers(leave: nn.Module, features: Tensor) -> Tensor:
    """A convolutional exit, its layers called one by one with their own parameters."""
    x = features
    for module in leave.modules():
        if isinstance(module, nn.Conv2d):
            x = F.conv2d(
                x, module.weight, module.bias, module.stride, module.padding, groups=module.groups
            )
        elif isinstance(module, nn.BatchNorm2d):
            dims = (0, 2, 3)
            mean, variance = x.mean(dims, keepdim=True), x.var(dims, unbiased=False, keepdim=True)
            scale, shift = module.weight[:, None, None], module.bias[:, None, None]
            x = (x - mean) / torch.sqrt(variance + module.eps) * scale + shift
        elif isinstance(module, nn.ReLU):
            x = x * (x > 0)
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            x = x.sum((2, 3)) / (x.shape[2] * x.shape[3])
        elif isinstance(module, nn.Linear):
            x = x @ module.weight.T + module.bias
    return x


@pytest.mark.parametrize(("epsilon", "temperature"), [(1.0, 1.0), (1.5, 2.0), (0.7, 1.0)])
def test_equal_to_the_loops(epsilon: float, temperature: float) -> None:
    case = exact_case("ofa", batch=4, epsilon=epsilon, temperature=temperature, exits=0.5)
    term, student = case.term, case.student

    def expected() -> Tensor:
        def part(z: Tensor) -> Tensor:
            return target_loss_in_loops(
                z, case.teacher.logits, case.batch.targets, epsilon, temperature
            )

        exits = [
            exit_by_layers(leave, student.features[tap])
            for tap, leave in zip(term.student_taps, term.exits, strict=True)
        ]
        assert len(exits) == 2
        return part(student.logits) + 0.5 * sum(part(z) for z in exits)

    assert_same(case, expected)


def test_epsilon_1_is_cross_entropy_with_the_teacher() -> None:
    student, teacher = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    expected = F.cross_entropy(student, teacher.softmax(dim=1))
    assert value_of(OFA(exits=0.0), student, teacher) == pytest.approx(float(expected))
    assert value_of(OFA(), student, teacher) > float(expected)


def test_epsilon_above_1_counts_a_sure_target_more() -> None:
    """With the teacher sure of the label, its weight is 2^epsilon - 1, and 0 for the others."""
    student = torch.randn(3, 4).double()
    sure = 1000.0 * F.one_hot(torch.arange(3), 4).double()
    value = value_of(OFA(epsilon=2.0, exits=0.0), student, sure)
    assert value == pytest.approx(3.0 * float(F.cross_entropy(student, torch.arange(3))))


def test_a_uniform_teacher_at_epsilon_1_ignores_the_label() -> None:
    student, teacher = torch.randn(3, 4).double(), torch.zeros(3, 4).double()
    values = [value_of(OFA(exits=0.0), student, teacher, label) for label in (0, 3)]
    assert values[0] == pytest.approx(values[1])


def test_exits_halve_the_map_once_per_later_stage() -> None:
    leave = convolutional_exit(4, 16, 2, 7)
    strides = [m.stride[0] for m in leave.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert strides == [2, 1, 2, 1]
    assert leave(torch.randn(3, 4, 9, 9)).shape == (3, 7)
    assert leave(torch.randn(1, 4, 1, 1)).shape == (1, 7)  # one value per channel
    assert leave[-1].in_features == 16


@pytest.mark.parametrize(("leading", "side"), [(0, 4), (1, 4), (2, 4), (1, 14)])
def test_exits_behind_tokens(leading: int, side: int) -> None:
    tokens = torch.randn(2, leading + side**2, 8)
    leave = make_exit(tokens, 8, 2, 5, "blocks.0")
    assert isinstance(leave, TransformerExit)
    assert leave.leading == leading
    assert [merge.side for merge in leave.merging] == ([14] if side == 14 else [])
    assert leave(tokens).shape == (2, 5)
    if leading:  # only the first leading token is read
        changed = leave.blocks(
            torch.cat((tokens[:, :leading], leave.merging(tokens[:, leading:])), 1)
        )
        assert torch.equal(leave(tokens), leave.classifier(changed[:, 0]))


def test_merging_joins_neighbours() -> None:
    merge = PatchMerging(1, 4)
    seen: list[Tensor] = []
    merge.norm.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    merge(torch.arange(16.0).view(1, 16, 1))
    assert seen[0][0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_exits_behind_units() -> None:
    leave = make_exit(torch.randn(2, 6), 10, 2, 5, "stage1")
    assert [m.out_features for m in leave.modules() if isinstance(m, nn.Linear)] == [10, 10, 5]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"Choose other taps"):
        make_exit(torch.randn(2, 3, 4, 4, 4), 8, 1, 5, "stage1")


def test_a_transformer_as_student_has_exits_behind_its_tokens() -> None:
    vit = VisionTransformer(3, 1, (8, 8), patch_size=4, width=8, depth=3, attention_heads=2)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images, targets = torch.randn(4, 1, 8, 8), torch.arange(4) % 3
    distiller = kdrun.Distiller(vit, teacher, "ofa", example=images)
    (loss,) = distiller.scheme.objective.loss_list()
    assert [type(leave) for leave in loss.exits] == [TransformerExit] * 3
    assert [len(leave.blocks) for leave in loss.exits] == [2, 1, 1]
    distiller(images, targets).loss.backward()
    assert all(p.grad is not None for p in loss.exits.parameters())
    assert not any("exits" in name for name in distiller.student.state_dict())


def test_frozen_values() -> None:
    student = torch.sin(1.3 * torch.arange(12).double()).view(3, 4)
    teacher = torch.cos(0.7 * torch.arange(12).double()).view(3, 4)
    loss = OFA(epsilon=1.5, exits=0.0, temperature=2.0)
    assert value_of(loss, student, teacher) == pytest.approx(1.1260068107)
