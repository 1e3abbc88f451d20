"""Timing: quantiles as NumPy has them, and a bounded number of calls."""

import numpy as np
import pytest

from kdrun.deploy import latency


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
def test_quantiles_are_numpys(share: float) -> None:
    values = sorted(np.random.default_rng(0).exponential(size=37).tolist())
    assert latency.quantile(values, share) == pytest.approx(np.quantile(values, share))


@pytest.mark.parametrize(("seconds", "repeats"), [(0.0, latency.FEWEST), (60.0, latency.MOST)])
def test_calls_are_bounded(seconds: float, repeats: int) -> None:
    calls = []
    found = latency.time_calls(lambda: calls.append(1), 7, seconds)
    assert found.batch_size == 7
    assert found.repeats == repeats == len(calls) - latency.WARM_UP
    assert 0 < found.p50_ms <= found.p95_ms


def test_interleaved_calls_share_the_rounds() -> None:
    calls: list[str] = []
    found = latency.time_interleaved(
        {name: lambda name=name: calls.append(name) for name in "ab"}, 3, 0.0
    )
    assert found["a"].repeats == found["b"].repeats == latency.FEWEST
    assert calls[4:8] == ["a", "b", "a", "b"]
    assert found["a"].batch_size == 3
