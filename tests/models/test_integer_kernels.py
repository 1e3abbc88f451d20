"""The emulated integer kernels and the exported file equal ONNX Runtime bit by bit."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdrun.deploy import formats
from kdrun.deploy.folded import Folded
from kdrun.models.card import NetworkCard
from kdrun.models.quantisation import kernels
from kdrun.models.quantisation.kernels import Grid, Quantised
from kdrun.models.quantisation.quantise import quantise
from kdrun.types import InputInfo, Normalisation

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
ALL = torch.arange(256).repeat(256), torch.arange(256).repeat_interleave(256)


def run_node(name: str, grids: tuple[Grid, Grid, Grid]) -> torch.Tensor:
    """All pairs of `uint8` through one node of ONNX Runtime; returns `[65536]` integers."""
    make = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.UINT8
    inputs = [make(letter, kind, [65536]) for letter in "ab"]
    constants = []
    for letter, grid in zip("abc", grids, strict=True):
        scale, zero = grid.scale.numpy(), grid.zero.to(torch.uint8).numpy()
        constants += [onnx.numpy_helper.from_array(scale, f"{letter}_scale")]
        constants += [onnx.numpy_helper.from_array(zero, f"{letter}_zero")]
    names = ["a", "a_scale", "a_zero", "b", "b_scale", "b_zero", "c_scale", "c_zero"]
    node = onnx.helper.make_node(name, names, ["c"], domain="com.microsoft")
    graph = onnx.helper.make_graph([node], "g", inputs, [make("c", kind, [65536])], constants)
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = runtime.InferenceSession(model.SerializeToString())
    values = {k: v.to(torch.uint8).numpy() for k, v in zip("ab", ALL, strict=True)}
    return torch.from_numpy(session.run(None, values)[0]).int()


@pytest.mark.parametrize("name", ["QLinearAdd", "QLinearMul"])
def test_every_pair_of_integers(name: str) -> None:
    torch.manual_seed(0)
    kernel = kernels.add if name == "QLinearAdd" else kernels.multiply
    differs_from_floats = 0
    for number in range(20):
        scales = torch.rand(3) * 0.1 + 0.01
        zeros = torch.randint(0, 256, (3,)) * (number % 2)
        grids = tuple(Grid(s, z.float()) for s, z in zip(scales, zeros, strict=True))
        pair = [Quantised(v - g.zero, g) for v, g in zip(ALL, grids, strict=False)]
        got = kernel(pair[0], pair[1], grids[2])
        expected = run_node(name, grids)
        assert torch.equal(torch.round(got / grids[2].scale), expected - grids[2].zero)
        plain = pair[0].values + pair[1].values
        differs_from_floats += int((grids[2].integers(plain) != expected - grids[2].zero).sum())
    assert differs_from_floats > 0, "a plain sum rounds some ties in the other direction"


class Everything(nn.Module):
    """Folded and free batch normalisation, sums in place, pools, concatenation, SE, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.conv3 = nn.Conv2d(8, 8, 1, bias=False)
        self.fc1, self.fc2 = nn.Linear(16, 12), nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = F.max_pool2d(self.bn1(self.conv1(images)).relu(), 2)
        active = F.dropout(self.bn2(hidden), 0.5, self.training).relu()
        branch = F.hardtanh(self.conv3(active), 0.0, 2.0)
        branch += self.conv2(active)
        branch = branch * branch.mean((2, 3), keepdim=True).sigmoid()
        both = torch.cat([branch, F.avg_pool2d(hidden, 3, 1, 1)], 1)
        pooled = F.adaptive_avg_pool2d(both, 1).flatten(1)
        return self.fc2(self.fc1(pooled).relu())


@pytest.mark.heavy
def test_an_exported_network_equals_evaluation(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, pixels = Everything(), torch.randint(0, 256, (512, 3, 12, 12), dtype=torch.uint8)
    quantise(network, "int8", torch.zeros(2, 3, 12, 12))
    constants = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    whole = Folded(network, constants)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    for batch in pixels.split(64):
        optimizer.zero_grad()
        F.cross_entropy(whole(batch), torch.randint(0, 5, (64,))).backward()
        optimizer.step()
    whole.eval()
    info = InputInfo(in_channels=3, image_size=(12, 12), num_classes=5)
    card = NetworkCard(
        name="everything", target="none", kwargs={}, taps={}, classes=tuple("abcde"), info=info,
        normalisation=constants, params=0, flops=0, resize=False, quantize="int8", extra={},
    )  # fmt: skip
    formats.write_onnx(whole, card, "uint8", tmp_path / "everything.onnx")
    run = formats.onnx_runner(tmp_path / "everything.onnx", 1)
    for size in (1, 7, 512):
        with torch.no_grad():
            assert torch.equal(run(pixels[:size]), whole(pixels[:size])), size
