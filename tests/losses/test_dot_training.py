"""A distillation with the two-momentum optimiser: it learns, and continues bit for bit."""

from dataclasses import replace
from pathlib import Path

import torch
from losses.cases import SCHEDULE, train

DOT = replace(SCHEDULE, optimizer="dot", lr=0.05)


def test_it_learns(tmp_path: Path) -> None:
    run = train("kd", tmp_path / "losses" / "learns", schedule=DOT)
    assert run is not None
    assert run.trained.test.metrics.top1 > 80.0


def test_it_resumes_and_differs_from_sgd(tmp_path: Path) -> None:
    """One epoch of 41 steps, stopped in the middle."""
    base = tmp_path / "losses"
    epoch = replace(DOT, epochs=1)
    whole = train("kd", base / "whole", schedule=epoch)
    assert whole is not None
    assert train("kd", base / "part", 25, epoch) is None
    resumed = train("kd", base / "part", schedule=epoch)
    assert resumed is not None
    for name, tensor in whole.state.items():
        assert torch.equal(tensor, resumed.state[name]), name
    sgd = train("kd", base / "sgd", schedule=replace(epoch, optimizer="sgd"))
    assert sgd is not None
    assert any(not torch.equal(whole.state[name], sgd.state[name]) for name in whole.state)
