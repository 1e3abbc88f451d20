"""Averaged weights (EMA): the values, what is averaged, and resuming."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine.test_loop import CPU, SCHEDULE, Blobs, Plain, Watcher, run, same_weights, training
from torch import nn
from torch.optim.swa_utils import AveragedModel

from kdrun.engine.loop import fit
from kdrun.engine.metrics import evaluate
from kdrun.engine.weight_average import WeightAverage, ema_decay, weights_swapped
from kdrun.errors import CheckpointError, ConfigError, Interrupted
from kdrun.teachers.formats import chosen_weights

EMA = replace(SCHEDULE, ema=0.5)


def drift(network: nn.Module) -> None:
    """One training step's worth of change, statistics and counters included."""
    network.train()
    network(torch.randn(8, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_the_warm_up_ends_at_the_decay() -> None:
    assert ema_decay(0.9998, 1) == pytest.approx(2 / 11)
    assert ema_decay(0.9998, 90) == pytest.approx(0.91)
    assert ema_decay(0.9, 90) == 0.9


def test_it_equals_torch_and_averages_buffers() -> None:
    """torch's AveragedModel with the same decay; it copies the weights at its first call."""

    def average(old: torch.Tensor, new: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        decay = ema_decay(0.5, int(n))
        return old.lerp(new, 1 - decay) if new.is_floating_point() else new

    network = Plain().net
    ours = WeightAverage(network, 0.5)
    theirs = AveragedModel(network, avg_fn=average, use_buffers=True)
    theirs.update_parameters(network)
    for step in range(1, 8):
        drift(network)
        ours.update(step)
        theirs.update_parameters(network)
    assert ours.tensors is not None
    expected = theirs.module.state_dict()
    counter = next(name for name in expected if name.endswith("num_batches_tracked"))
    assert ours.tensors.pop(counter) == network.state_dict()[counter] == 7
    for name, tensor in ours.tensors.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-7)
        assert not torch.equal(tensor, network.state_dict()[name])


def test_training_is_unchanged_and_the_average_is_measured(tmp_path: Path) -> None:
    plain, _, _ = run(tmp_path / "plain")
    weights, state, watcher = run(tmp_path / "ema", schedule=EMA)
    assert same_weights(plain, weights)
    assert state.averaged is not None
    scheme = Plain()
    scheme.net.load_state_dict(state.averaged)
    expected = evaluate(scheme.net, list(Blobs().epoch(99)), CPU, "fp32").metrics
    last = watcher.rows[-1]
    assert (last["val/ema_loss"], last["val/ema_top1_percent"]) == (expected.loss, expected.top1)
    assert last["val/ema_loss"] != last["val/loss"]


@pytest.mark.parametrize("stop_at", [1, 5, 7])
def test_the_average_survives_a_stop(tmp_path: Path, stop_at: int) -> None:
    _, whole, _ = run(tmp_path / "whole", schedule=EMA)
    with pytest.raises(Interrupted):
        fit(Plain(), training(tmp_path / "part", Watcher(stop_at=stop_at), schedule=EMA))
    _, state, _ = run(tmp_path / "part", schedule=EMA)
    assert whole.averaged is not None
    assert state.averaged is not None
    assert same_weights(state.averaged, whole.averaged)


def test_a_checkpoint_without_the_average_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(Plain(), training(tmp_path, Watcher(stop_at=3)))
    with pytest.raises(CheckpointError, match="not a checkpoint of this training"):
        run(tmp_path, schedule=EMA)


def test_swapped_weights_are_restored() -> None:
    network = Plain().net
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with weights_swapped(network, {name: torch.ones_like(t) for name, t in before.items()}):
        assert all(bool((tensor == 1).all()) for tensor in network.state_dict().values())
    assert same_weights(network.state_dict(), before)


def test_weights_ema_needs_a_folder_that_has_them(tmp_path: Path) -> None:
    assert chosen_weights(str(tmp_path), "last") == tmp_path
    with pytest.raises(ConfigError, match="neither: name the file itself"):
        chosen_weights(str(tmp_path), "ema")
    (tmp_path / "student.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no averaged weights: train with schedule\.ema"):
        chosen_weights(str(tmp_path), "ema")
    averaged = tmp_path / "student_ema.safetensors"
    averaged.touch()
    assert chosen_weights(str(tmp_path), "ema") == averaged
