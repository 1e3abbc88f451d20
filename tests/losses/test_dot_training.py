"""A distillation with the two-momentum optimiser: it learns, and continues bit for bit."""

from dataclasses import replace
from pathlib import Path

import torch
from losses.cases import SCHEDULE, train

DOT = replace(SCHEDULE, optimizer="dot", lr=0.05)


def test_it_learns_continues_and_differs_from_sgd(tmp_path: Path) -> None:
    base = tmp_path / "losses"
    whole = train("kd", base / "whole", schedule=DOT)
    assert whole is not None
    assert whole.trained.test.metrics.top1 > 80.0
    assert train("kd", base / "part", 50, DOT) is None
    rest = train("kd", base / "part", schedule=DOT)
    assert rest is not None
    for name, tensor in whole.state.items():
        assert torch.equal(tensor, rest.state[name]), name
    plain = train("kd", base / "sgd", schedule=replace(DOT, optimizer="sgd"))
    assert plain is not None
    assert any(not torch.equal(whole.state[name], plain.state[name]) for name in whole.state)
