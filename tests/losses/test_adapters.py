"""Adapters between feature maps."""

import math

import pytest
import torch
from losses.map_cases import run_by_hand
from torch import nn

from kdrun.losses.adapters import AdapterNorm, Resize, connector, regressor


@pytest.mark.parametrize(
    ("student", "teacher", "first", "kernel"),
    [
        ((8, 8), (8, 8), nn.Conv2d, (1, 1)),
        ((8, 8), (4, 4), nn.Conv2d, (3, 3)),
        ((2, 2), (1, 1), nn.Conv2d, (3, 3)),
        ((4, 4), (8, 8), nn.ConvTranspose2d, (4, 4)),
        ((1, 1), (2, 2), nn.ConvTranspose2d, (4, 4)),
        ((7, 6), (4, 6), nn.Conv2d, (4, 1)),
        ((32, 32), (4, 4), Resize, None),
        ((1, 1), (8, 8), Resize, None),
        ((4, 8), (8, 4), Resize, None),
    ],
)
def test_regressor_gives_the_teachers_shape(
    student: tuple[int, int],
    teacher: tuple[int, int],
    first: type[nn.Module],
    kernel: tuple[int, int] | None,
) -> None:
    s, t = torch.randn(3, 5, *student), torch.randn(3, 7, *teacher)
    layers = regressor(s, t, norm=True, relu=True)
    found = layers(s)
    assert found.shape == t.shape
    assert isinstance(layers[0], first)
    assert kernel is None or layers[0].kernel_size == kernel
    torch.testing.assert_close(found, run_by_hand(layers, s), rtol=1e-4, atol=1e-5)


def test_what_follows_the_convolution() -> None:
    s = torch.randn(2, 5, 4, 4)
    assert len(regressor(s, s, norm=False, relu=False)) == 1
    assert isinstance(regressor(s, s, norm=False, relu=True)[-1], nn.ReLU)
    assert isinstance(regressor(s, s, norm=True, relu=False)[-1], AdapterNorm)


def test_norm_is_the_usual_one_where_there_is_a_deviation() -> None:
    ours, usual = AdapterNorm(3), nn.BatchNorm2d(3)
    for shape in ((2, 3, 1, 1), (1, 3, 2, 1), (4, 3, 5, 5)):
        x = torch.randn(shape)
        torch.testing.assert_close(ours(x), usual(x))
    for name, value in usual.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_norm_of_a_single_value_uses_the_running_statistics() -> None:
    norm = AdapterNorm(2)
    norm(torch.tensor([[[[1.0]], [[2.0]]], [[[3.0]], [[6.0]]]]))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    single = torch.tensor([[[[1.0]], [[2.0]]]])
    found = norm(single)
    expected = nn.BatchNorm2d(2)
    expected.load_state_dict(before)
    torch.testing.assert_close(found, expected.eval()(single))
    for name, value in before.items():
        assert torch.equal(norm.state_dict()[name], value)


def test_connector() -> None:
    torch.manual_seed(0)
    layers = connector(100, 400)
    assert layers(torch.randn(2, 100, 3, 3)).shape == (2, 400, 3, 3)
    assert layers[0].bias is None
    assert layers[0].weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
