"""The bound on the weights into a unit: what it shortens, what it leaves alone, and when."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine.test_loop import SCHEDULE, Plain, Watcher, run, same_weights, training
from torch import Tensor, nn

from kdrun.engine.loop import fit
from kdrun.engine.max_norm import MaxNorm
from kdrun.errors import Interrupted

LAYERS = [
    nn.Linear(5, 4),
    nn.Conv1d(2, 4, 3),
    nn.Conv2d(4, 6, 3, groups=2),
    nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
    nn.ConvTranspose2d(3, 4, 2),
    nn.ConvTranspose2d(6, 4, 2, groups=2),
]


def incoming(layer: nn.Module, weight: Tensor) -> Tensor:
    """`[units, inputs]`, found by asking each unit what it makes of every single input."""
    probe = type(layer)(**_arguments(layer))
    probe.weight.data = weight.clone()
    sides = {nn.Linear: (), nn.Conv1d: (3,), nn.Conv2d: (3, 3), nn.ConvTranspose2d: (1, 1)}
    size = (_inputs(layer), *sides[type(layer)])
    basis = torch.eye(torch.Size(size).numel()).view(-1, *size)
    answers = probe(basis).flatten(2) if basis.dim() > 2 else probe(basis)[:, :, None]
    return answers.transpose(0, 1).flatten(1).detach()  # the other units' inputs give zeros


def _inputs(layer: nn.Module) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _arguments(layer: nn.Module) -> dict[str, object]:
    if isinstance(layer, nn.Linear):
        return {"in_features": 5, "out_features": 4, "bias": False}
    names = ("in_channels", "out_channels", "kernel_size", "groups")
    return {name: getattr(layer, name) for name in names} | {"bias": False}


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_long_vectors_are_shortened_and_the_others_kept(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer.weight.data.normal_()
    before = incoming(layer, layer.weight.data)
    limit = float(before.norm(dim=1).median()) + 1e-4
    bias = layer.bias.detach().clone()
    MaxNorm(nn.Sequential(layer).modules(), limit).apply()
    after = incoming(layer, layer.weight.data)
    long = before.norm(dim=1) > limit
    assert 0 < long.sum() < len(long)
    assert torch.equal(after[~long], before[~long])
    expected = before[long] * limit / before[long].norm(dim=1, keepdim=True)
    torch.testing.assert_close(after[long], expected)
    assert torch.equal(layer.bias, bias)


def test_frozen_weights_and_other_layers_are_left_alone() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Embedding(3, 3))
    network[0].requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    MaxNorm(network.modules(), 1e-3).apply()
    assert same_weights(network.state_dict(), before)


def test_no_bound_is_no_work() -> None:
    assert MaxNorm([nn.Linear(3, 3)], 0.0).weights == []


def longest(weights: dict[str, Tensor]) -> float:
    return max(float(weights[f"net.{i}.weight"].norm(dim=1).max()) for i in (0, 4))


def test_after_a_training_no_vector_is_longer(tmp_path: Path) -> None:
    plain, _, _ = run(tmp_path / "a")
    bound, _, _ = run(tmp_path / "b", schedule=replace(SCHEDULE, max_norm=0.4))
    loose, _, _ = run(tmp_path / "c", schedule=replace(SCHEDULE, max_norm=100.0))
    assert longest(plain) > 0.5 > 0.4 * (1 + 1e-6) > longest(bound)
    assert same_weights(loose, plain)


def test_a_stopped_training_goes_on_within_the_bound(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, max_norm=0.4)
    whole, _, _ = run(tmp_path / "whole", schedule=schedule)
    with pytest.raises(Interrupted):
        fit(Plain(), training(tmp_path / "part", Watcher(stop_at=7), schedule=schedule))
    scheme = Plain()
    fit(scheme, training(tmp_path / "part", Watcher(), schedule=schedule))
    assert same_weights(scheme.state_dict(), whole)
