"""Measuring on a machine that does other things too: interleaved blocks, medians, spread."""

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
    """Of two variants measured in the same rounds: the spread of their ratio round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def interleave(
    blocks: Mapping[str, Callable[[], float]],
    rounds: int,
    done: Callable[[int], None] = lambda _: None,
) -> dict[str, list[float]]:
    """What each block returned in each of `rounds` rounds.

    Every round runs every block once; the order turns by one each round, and every other round
    goes backwards, so that a disturbance or a drift of the clock meets all of them alike.
    """
    names = list(blocks)
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        turn = number % len(names)
        order = names[turn:] + names[:turn]
        for name in order if number % 2 == 0 else reversed(order):
            found[name].append(blocks[name]())
        done(number + 1)
    return found


class PhaseClock:
    """Seconds by phase of a step, from wrappers around the functions that do the phases.

    Inactive, a wrapper passes the call on. Active, it waits for the device before it looks at the
    clock, so a step that is watched on a GPU is slower than one that is not.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.active = False
        self.seconds: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def now(self) -> float:
        """The clock, when the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def start(self, phase: str) -> None:
        """The phase begins."""
        if self.active:
            self._since[phase] = self.now()

    def stop(self, phase: str) -> None:
        """The phase ends; without a beginning nothing is counted."""
        if self.active and phase in self._since:
            spent = self.now() - self._since.pop(phase)
            self.seconds[phase] = self.seconds.get(phase, 0.0) + spent

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time counted as `phase`."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.start(phase)
            result = function(*args, **kwargs)
            self.stop(phase)
            return result

        return call

    def watch_module(self, phase: str, module: nn.Module, then: str | None = None) -> None:
        """Count a module's forward as `phase`; where it ends, the phase `then` begins."""
        module.register_forward_pre_hook(lambda *_: self.start(phase))

        def ended(*_: Any) -> None:
            self.stop(phase)
            if then is not None:
                self.start(then)

        module.register_forward_hook(ended)

    def watch_optimizer(self, phase: str, optimizer: optim.Optimizer, before: str) -> None:
        """Count the optimiser's step as `phase`; where it begins, the phase `before` ends."""

        def began(*_: Any) -> None:
            self.stop(before)
            self.start(phase)

        optimizer.register_step_pre_hook(began)
        optimizer.register_step_post_hook(lambda *_: self.stop(phase))
