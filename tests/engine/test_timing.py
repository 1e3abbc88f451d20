"""Interleaving, spreads and the phases' clock; nothing here depends on how fast anything is."""

import pytest
import torch
from torch import nn

from kdrun.engine import peak
from kdrun.engine.timing import PhaseClock, interleave, ratios, spread


def test_every_round_runs_every_block_once_in_turned_order() -> None:
    order: list[str] = []

    def block(name: str) -> float:
        order.append(name)
        return float(len(order))

    names = "abc"
    found = interleave({n: lambda n=n: block(n) for n in names}, rounds=4)  # type: ignore[misc]
    rounds = ["".join(order[i : i + 3]) for i in range(0, 12, 3)]
    assert all(sorted(one) == list(names) for one in rounds)
    assert rounds == ["abc", "acb", "cab", "cba"]
    for name in names:
        assert found[name] == [1.0 + i for i, ran in enumerate(order) if ran == name]


def test_a_spread_is_median_and_quartiles() -> None:
    found = spread([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (found.median, found.low, found.high, found.rounds) == (3.0, 2.0, 4.0, 5)
    assert spread([7.0]).as_dict() == {"median": 7.0, "low": 7.0, "high": 7.0, "rounds": 1}


def test_a_ratio_is_taken_round_by_round() -> None:
    slow_then_quick = [10.0, 1.0, 1.0]
    assert ratios(slow_then_quick, [5.0, 0.5, 0.5]).median == 2.0


def test_phases_add_up_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("kdrun.engine.timing.time.perf_counter", lambda: float(next(ticks)))
    clock = PhaseClock(torch.device("cpu"))
    module, optimizer = nn.Linear(2, 1), torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.1)
    clock.watch_module("terms", module, then="backward")
    clock.watch_optimizer("optimiser", optimizer, before="backward")
    forward = clock.timed("forward", lambda x: x + 1)
    forward(1)
    module(torch.zeros(1, 2))
    assert clock.seconds == {}
    clock.active = True
    assert forward(1) == 2
    module(torch.zeros(1, 2))
    optimizer.step()
    assert clock.seconds == {"forward": 1, "terms": 1, "backward": 1, "optimiser": 1}


@pytest.mark.parametrize("make", [peak.matrix_product, peak.convolution])
def test_operations_are_counted(make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr(peak, "MATRIX", 32)
    monkeypatch.setattr(peak, "CONVOLUTION", (2, 4, 8))
    operation, flops = make(torch.device("cpu"), "fp32")
    with FlopCounterMode(display=False) as counter:
        operation()
    assert counter.get_total_flops() == flops
    assert peak.flops_per_second(operation, flops, torch.device("cpu"), calls=1) > 0
