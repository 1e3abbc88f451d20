"""Inference latency on this machine."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kdrun.engine.timing import interleave

WARM_UP = 2
FEWEST, MOST = 5, 200


@dataclass(frozen=True)
class Latency:
    """Milliseconds per batch: median and 95th percentile of `repeats` calls."""

    batch_size: int
    p50_ms: float
    p95_ms: float
    repeats: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "batch_size": self.batch_size,
            "p50_ms": round(self.p50_ms, 4),
            "p95_ms": round(self.p95_ms, 4),
            "repeats": self.repeats,
        }


def time_calls(call: Callable[[], object], batch_size: int, seconds: float) -> Latency:
    """Time `call` for about `seconds`, at least 5 and at most 200 times, after a warm-up."""
    for _ in range(WARM_UP):
        call()
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < MOST:
        before = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append(1000 * (now - before))
        if len(times) >= FEWEST and now - started > seconds:
            break
    return _summary(times, batch_size)


def time_interleaved(
    calls: Mapping[str, Callable[[], object]], batch_size: int, seconds: float
) -> dict[str, Latency]:
    """Time several calls in turn, for about `seconds` each, after a warm-up.

    Disturbances and drift of the machine affect all of them equally.
    """
    blocks = {name: _timer(call) for name, call in calls.items()}
    once = 0.0
    for block in blocks.values():
        once += [block() for _ in range(WARM_UP)][-1]
    rounds = min(max(round(1000 * seconds * len(blocks) / max(once, 1e-6)), FEWEST), MOST)
    return {name: _summary(times, batch_size) for name, times in interleave(blocks, rounds).items()}


def _timer(call: Callable[[], object]) -> Callable[[], float]:
    """Milliseconds of one call."""

    def timed() -> float:
        began = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - began)

    return timed


def _summary(times: list[float], batch_size: int) -> Latency:
    times = sorted(times)
    return Latency(batch_size, quantile(times, 0.5), quantile(times, 0.95), len(times))


def quantile(ordered: list[float], share: float) -> float:
    """The value below which `share` of the sorted values lie, interpolated between neighbours."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
