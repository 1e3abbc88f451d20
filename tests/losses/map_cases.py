"""Layers, pooling and comparison written out by hand, for the losses on feature maps."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from losses.cases import Case, leaves, make_case, map_outputs
from torch import Tensor, nn

from kdrun.losses.adapters import Resize


def exact_case(loss: str, pair: str = "cnn", batch: int = 3, **settings: object) -> Case:
    """The loss's case in float64."""
    case = make_case(loss, pair, batch=batch, **settings)
    return replace(
        case,
        term=case.term.double(),
        student=leaves(map_outputs(case.student, lambda tensor, _: tensor.detach().double())),
        teacher=map_outputs(case.teacher, lambda tensor, _: tensor.detach().double()),
    )


def maps(case: Case) -> list[tuple[Tensor, Tensor]]:
    """(student, teacher) features of the case's tap pairs; units `[B, D]` as `[B, D, 1, 1]`."""
    return [
        (_square(case.student.features[s]), _square(case.teacher.features[t]))
        for s, t in case.term.pairs
    ]


def _square(features: Tensor) -> Tensor:
    return features.reshape(*features.shape, *[1] * (4 - features.dim()))


def assert_same(
    case: Case, expected: Callable[[], Tensor], found: Callable[[], Tensor] | None = None
) -> None:
    """Value and all gradients, of the student's tensors and the adapters, agree.

    found: what is tested instead of the term's value.
    """
    trained = [p for p in case.term.parameters() if p.requires_grad]
    wanted = [*case.inputs(), *trained]
    values = [(found or case.loss)(), expected()]
    torch.testing.assert_close(values[0], values[1], rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(value, wanted, allow_unused=True) for value in values]
    moved = 0
    for one, other in zip(*gradients, strict=True):
        one, other = (torch.zeros(()) if g is None else g for g in (one, other))
        if one.shape != other.shape:  # not reached, against reached with zeros
            assert not one.any()
            assert not other.any()
            continue
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)
        moved += bool(one.any())
    assert moved > 0


def total(values: list[Tensor]) -> Tensor:
    """Their sum."""
    return torch.stack(values).sum()


def pool_by_hand(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Means over the cells of a grid of `size`, which is nowhere larger than the map."""
    height, width = features.shape[2:]
    rows = []
    for i in range(size[0]):
        top, bottom = i * height // size[0], math.ceil((i + 1) * height / size[0])
        row = []
        for j in range(size[1]):
            left, right = j * width // size[1], math.ceil((j + 1) * width / size[1])
            row.append(features[:, :, top:bottom, left:right].mean((2, 3)))
        rows.append(torch.stack(row, dim=2))
    return torch.stack(rows, dim=2)


def match_by_hand(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Both at the smaller size."""
    size = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
    return pool_by_hand(s, size), pool_by_hand(t, size)


def repeat_by_hand(features: Tensor, size: tuple[int, int]) -> Tensor:
    """The nearest value of the map for every place of `size`."""
    rows = [i * features.shape[2] // size[0] for i in range(size[0])]
    columns = [j * features.shape[3] // size[1] for j in range(size[1])]
    return features[:, :, rows][:, :, :, columns]


def run_by_hand(layers: nn.Module, features: Tensor) -> Tensor:
    """What the layers of an adapter compute, with other operations."""
    for layer in layers:  # type: ignore[attr-defined]
        features = _layer_by_hand(layer, features)
    return features


def _layer_by_hand(layer: nn.Module, x: Tensor) -> Tensor:
    match layer:
        case nn.Sequential():
            return run_by_hand(layer, x)
        case nn.ConvTranspose2d():
            return _transposed(layer, x)
        case nn.Conv2d():
            return _convolution(layer, x)
        case nn.BatchNorm2d():
            mean = x.mean((0, 2, 3), keepdim=True)
            variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
            normal = (x - mean) / (variance + layer.eps).sqrt()
            return normal * layer.weight[:, None, None] + layer.bias[:, None, None]
        case nn.LeakyReLU():
            return torch.maximum(x, layer.negative_slope * x)
        case nn.ReLU():
            return torch.maximum(x, torch.zeros_like(x))
        case Resize():
            small = pool_by_hand(x, tuple(map(min, zip(x.shape[2:], layer.size, strict=True))))
            return repeat_by_hand(small, layer.size)
        case nn.Identity():
            return x
    raise TypeError(type(layer))


def _convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """Every kernel position takes its view of the padded map."""
    stride, padding = layer.stride[0], int(layer.padding[0])
    height, width = layer.kernel_size
    wide = torch.zeros(*x.shape[:2], *(n + 2 * padding for n in x.shape[2:]), dtype=x.dtype)
    wide[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]] = x
    rows = (wide.shape[2] - height) // stride + 1
    columns = (wide.shape[3] - width) // stride + 1
    found = torch.zeros(len(x), layer.out_channels, rows, columns, dtype=x.dtype)
    for i, j in itertools.product(range(height), range(width)):
        view = wide[:, :, i : i + rows * stride : stride, j : j + columns * stride : stride]
        found = found + torch.einsum("bchw,oc->bohw", view, layer.weight[:, :, i, j])
    return found if layer.bias is None else found + layer.bias[:, None, None]


def _transposed(layer: nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Every place of the map throws its kernel onto the larger one, whose border is cut off."""
    stride, padding = layer.stride[0], int(layer.padding[0])
    height, width = layer.kernel_size
    rows, columns = ((n - 1) * stride + k for n, k in zip(x.shape[2:], (height, width)))  # noqa: B905
    found = torch.zeros(len(x), layer.out_channels, rows, columns, dtype=x.dtype)
    for i, j in itertools.product(range(height), range(width)):
        part = torch.zeros_like(found)
        part[:, :, i : i + x.shape[2] * stride : stride, j : j + x.shape[3] * stride : stride] = (
            torch.einsum("bchw,co->bohw", x, layer.weight[:, :, i, j])
        )
        found = found + part
    found = found[:, :, padding : rows - padding, padding : columns - padding]
    assert layer.bias is not None
    return found + layer.bias[:, None, None]
