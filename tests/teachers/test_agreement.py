"""What the promise of remembered teachers rests on, measured on the processor of the test."""

import pytest
import torch
from torch import Tensor, nn

from kdrun.models.mlp import MLP
from kdrun.models.resnet import ResNet
from kdrun.models.wrn import WideResNet
from kdrun.teachers.agreement import Agreement, agreement


def convolutional(widths: int) -> nn.Module:
    return ResNet(10, depth=8, widths=[widths, widths, 2 * widths, 4 * widths])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (lambda: convolutional(16), 3),
        (lambda: WideResNet(10, depth=10, widen_factor=1), 3),
        (lambda: MLP(10, 1, (16, 16), [600, 600]), 1),
    ],
    ids=["resnet", "wrn", "mlp"],
)
def test_a_rows_bits_do_not_depend_on_its_neighbours(network, channels, layout) -> None:  # type: ignore[no-untyped-def]
    """What the promise rests on, for the networks of the field, on the processor of the test.

    Where a processor's kernels fail it, runs measure that themselves and remember nothing.
    """
    torch.manual_seed(0)
    made = network().eval()
    images = torch.randn(128, channels, 16, 16).contiguous(memory_format=layout)
    found = agreement(made, images, 64, 64)
    assert found.rows or not found.batch
    if torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert found.rows


def test_a_network_that_looks_at_its_neighbours_is_noticed() -> None:
    class Mixing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            rows = images.flatten(1)
            return rows - 1e-7 * rows.mean(0, keepdim=True)

    assert agreement(Mixing(), torch.randn(128, 1, 4, 4), 64, 64) == Agreement(False, False)

    class Sized(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1) + float(len(images))

    assert agreement(Sized(), torch.randn(128, 1, 4, 4), 64, 32) == Agreement(True, False)
    assert agreement(Sized(), torch.randn(128, 1, 4, 4), 64, 64) == Agreement(True, True)
