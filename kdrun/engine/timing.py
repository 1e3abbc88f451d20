"""Timing on a busy machine: interleaved blocks, medians and quartiles."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn, optim


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of `rounds` measurements."""

    median: float
    low: float
    high: float
    rounds: int

    def as_dict(self) -> dict[str, float | int]:
        """The fields by name, for JSON."""
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles of at least one value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Spread of the per-round ratio of two variants that were measured in the same rounds."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def interleave(
    blocks: Mapping[str, Callable[[], float]],
    rounds: int,
    done: Callable[[int], None] = lambda _: None,
) -> dict[str, list[float]]:
    """Run every block once per round; returns the values of each block, one per round.

    The order rotates by one each round and is reversed every other round, so that disturbances and
    drift affect all blocks equally. done: called with the number of finished rounds.
    """
    names = list(blocks)
    values: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names)
        order = names[shift:] + names[:shift]
        for name in order if number % 2 == 0 else reversed(order):
            values[name].append(blocks[name]())
        done(number + 1)
    return values


class PhaseClock:
    """Measures the seconds of each phase of a step by wrapping the functions involved.

    While inactive, wrappers only forward the call. While active, they synchronise the device at
    every phase boundary, which slows down steps on a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.active = False
        self.seconds: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def now(self) -> float:
        """Current time, after synchronising the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def start(self, phase: str) -> None:
        """Start timing a phase."""
        if self.active:
            self._since[phase] = self.now()

    def stop(self, phase: str) -> None:
        """Stop timing a phase; ignored if it was not started."""
        if self.active and phase in self._since:
            spent = self.now() - self._since.pop(phase)
            self.seconds[phase] = self.seconds.get(phase, 0.0) + spent

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `function` so that its time counts as `phase`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.start(phase)
            result = function(*args, **kwargs)
            self.stop(phase)
            return result

        return call

    def watch_module(self, phase: str, module: nn.Module, then: str | None = None) -> None:
        """Time a module's forward as `phase`; when it ends, start the phase `then`."""
        module.register_forward_pre_hook(lambda *_: self.start(phase))

        def ended(*_: Any) -> None:
            self.stop(phase)
            if then is not None:
                self.start(then)

        module.register_forward_hook(ended)

    def watch_optimizer(self, phase: str, optimizer: optim.Optimizer, before: str) -> None:
        """Time the optimiser's step as `phase`; when it begins, stop the phase `before`."""

        def began(*_: Any) -> None:
            self.stop(before)
            self.start(phase)

        optimizer.register_step_pre_hook(began)
        optimizer.register_step_post_hook(lambda *_: self.stop(phase))
