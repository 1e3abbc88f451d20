"""Quantised networks with unusual calls: evaluation, integer form and files agree with training."""

import copy
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from models import quantised_calls as calls
from torch import nn

from kdrun.deploy import formats
from kdrun.deploy.integer_form import IntegerForm, integer_form
from kdrun.deploy.student import LoadedNetwork
from kdrun.deploy.unsigned_weights import use_unsigned_weights
from kdrun.errors import ConfigError
from kdrun.models.card import NetworkCard
from kdrun.models.quantisation.arithmetic import TrainingArithmetic
from kdrun.models.quantisation.quantise import quantise, quantisers_of
from kdrun.types import InputInfo, Normalisation

NETWORKS: list[Callable[[], nn.Module]] = [
    calls.NormAfterLinear,
    calls.WeightedSum,
    calls.InPlace,
    calls.Tied,
    calls.WeightUsedTwice,
    calls.Keywords,
    calls.Children,
    calls.sequential,
]


def trained(make: Callable[[], nn.Module]) -> tuple[nn.Module, nn.Module, torch.Tensor]:
    """(quantised, the same weights in full precision, images), after a few steps."""
    torch.manual_seed(0)
    network, images = make(), torch.rand(64, 1, 6, 6)
    targets = torch.randint(calls.CLASSES, (64,))
    plain = copy.deepcopy(network)
    quantise(network, "int8", images[:2])
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), targets).backward()
        optimizer.step()
    plain.load_state_dict(network.state_dict(), strict=False)
    return network.eval(), plain.eval(), images


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Largest difference of logits, as a share of the largest logit's distance to the mean."""
    return float((first - second).abs().max() / (second - second.mean()).abs().max())


@pytest.mark.parametrize("make", NETWORKS)
def test_evaluation_computes_what_training_does(make: Callable[[], nn.Module]) -> None:
    network, plain, images = trained(make)
    quantisers = quantisers_of(network)
    assert quantisers is not None
    with torch.no_grad():
        evaluated = network(images)
        quantisers.done, quantisers.arithmetic = 1.0, TrainingArithmetic()
        assert difference(evaluated, network(images)) < 0.03
        assert difference(evaluated, plain(images)) < 0.15
        quantisers.arithmetic = None
        assert torch.equal(integer_form(network, images[:2], IntegerForm)(images), evaluated)


def has_exact_int8() -> bool:
    """Without VNNI, ONNX Runtime adds pairs of int8 products in 16 bits, which saturate."""
    cpu = Path("/proc/cpuinfo")
    x86 = platform.machine() in ("x86_64", "AMD64")
    return not (x86 and cpu.exists()) or "vnni" in cpu.read_text()


# Exporting takes seconds: two structures here, all of them with -m heavy.
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            make,
            marks=[] if make in (calls.InPlace, calls.WeightUsedTwice) else pytest.mark.heavy,
            id=make.__name__,
        )
        for make in NETWORKS
    ],
)
def test_files_compute_what_evaluation_does(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    network, _, images = trained(make)
    info = InputInfo(calls.CLASSES, 1, (6, 6))
    card = NetworkCard(
        "net", "net", {}, {}, ("a", "b", "c"), info, Normalisation((0.0,), (1.0,)), 1, 1, "0" * 64,
        quantize="int8",
    )  # fmt: skip
    loaded = LoadedNetwork(network, card)
    formats.write_onnx(loaded, card, "float32", tmp_path / "x.onnx")
    formats.write_pt2(loaded, card, "float32", tmp_path / "x.pt2")
    for count in (1, 7):
        with torch.no_grad():
            expected = loaded(images[:count])
        if has_exact_int8():
            onnx = formats.onnx_runner(tmp_path / "x.onnx", 1)(images[:count])
            assert difference(onnx, expected) < 0.02
        assert torch.equal(formats.pt2_runner(tmp_path / "x.pt2")(images[:count]), expected)
    use_unsigned_weights(tmp_path / "x.onnx")
    assert difference(formats.onnx_runner(tmp_path / "x.onnx", 1)(images), loaded(images)) < 0.02


def test_a_weight_that_is_read_in_floats_too_is_not_exported() -> None:
    network, _, images = trained(calls.FloatReader)
    with pytest.raises(ConfigError, match=r"The weight b\.weight is read by a quantised layer and"):
        integer_form(network, images[:2], IntegerForm)
