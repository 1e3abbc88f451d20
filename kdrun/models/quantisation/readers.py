"""Which results of a network are rounded to the grid of a single reader.

Runtimes merge an operation with the rounding that follows it only if nothing else reads its result.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

T = torch.Tensor
# They map a grid onto itself, or move values without changing them, so that runtimes round before
# or after them.
PASSING: frozenset[Callable[..., Any]] = frozenset(
    {
        *(F.relu, torch.relu, torch.relu_, T.relu, T.relu_, F.relu6, F.hardtanh),
        *(torch.clamp, T.clamp, T.clamp_, T.clip, torch.clip, T.clamp_min, torch.clamp_min),
        *(F.max_pool2d, torch.max_pool2d, F.dropout, F.dropout2d, T.contiguous),
        *(torch.flatten, T.flatten, torch.reshape, T.reshape, T.view, torch.permute, T.permute),
        *(torch.transpose, T.transpose, T.squeeze, torch.squeeze, T.unsqueeze, torch.unsqueeze),
    }
)  # fmt: skip


Identity = tuple[int, int | None]


def identity(tensor: Tensor) -> Identity:
    """A tensor before its next in-place change; inference mode does not count changes."""
    return id(tensor), None if tensor.is_inference() else tensor._version


def identities(values: Any) -> list[Identity]:
    """Those of all tensors in a structure."""
    return [identity(leaf) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Readers:
    """Follows the results of quantised operations through a dry run."""

    def __init__(self) -> None:
        self.calls: dict[Identity, str] = {}  # result → name of its call
        self.readers: dict[Identity, set[str | int]] = defaultdict(set)  # activations or numbers
        self.sources: dict[Identity, Identity] = {}  # result of a passing operation → its input
        self.alive: list[Any] = []  # ids of freed tensors are reused
        self.count = 0

    def result(self, key: str, output: Tensor) -> None:
        """The result of a quantised operation."""
        self.alive.append(output)
        self.calls[identity(output)] = key

    def rounds(self, name: str, tensor: Tensor) -> None:
        """A tensor is rounded to the grid of the activation `name`."""
        self.alive.append(tensor)
        self.readers[identity(tensor)].add(name)

    def reads(self, inputs: list[Identity], output: Any, passes: bool) -> None:
        """Any other operation. inputs: its tensors before it ran.

        passes: one of `PASSING`, or a batch normalisation that is folded. An operation that returns
        no tensor (a shape, a size) reads nothing.
        """
        made = identities(output)
        if not made or made[0] in inputs:  # an operation without effect, e.g. dropout in eval mode
            return
        self.alive.append(output)
        self.count += 1
        for tensor in inputs:
            self.readers[tensor].add(self.count)
        if passes:
            self.sources[made[0]] = inputs[0]

    def returned(self, output: Any) -> None:
        """What the network returns is read by its caller."""
        for tensor in identities(output):
            self.readers[tensor].add(-1)

    def found(self) -> dict[str, str]:
        """Call → the activation whose grid its result is rounded to, if nothing else reads it."""
        names = {}
        for tensor, readers in list(self.readers.items()):
            only = next(iter(readers))
            if len(readers) > 1 or not isinstance(only, str):
                continue
            while tensor in self.sources and len(self.readers[self.sources[tensor]]) == 1:
                tensor = self.sources[tensor]
            if tensor in self.calls:
                names[self.calls[tensor]] = only
        return names
