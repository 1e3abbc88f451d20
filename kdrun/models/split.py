"""Cutting a network in two while it runs: what comes before a tap is computed once and shared.

Any network can be cut at any of its taps, however its forward is written. Its modules' calls are
watched once. In a second network of the same kind the modules that have finished by then are
replaced by the recorded outputs of the first one's, so that its forward goes through the same code
and only computes what comes after the cut.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.dry_run import dry_run, logits_of
from kdrun.models.features.hooks import INPUT_SUFFIX


@dataclass(frozen=True)
class Cut:
    """Which calls of which modules come before the tap `name`.

    calls: module path → (how many of its first calls, of how many). Only outermost modules are
    named: what is inside one that is wholly before is not.
    """

    name: str
    calls: Mapping[str, tuple[int, int]]


class Recording:
    """The outputs of the modules before a cut, of one forward of the network that computes them."""

    def __init__(self, network: nn.Module, cut: Cut) -> None:
        self.cut = cut
        self.outputs: dict[str, list[Any]] = {}
        self._active = False
        for path in cut.calls:
            network.get_submodule(path).register_forward_hook(_Keep(self, path))

    def run(self, forward: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Call the recorded network's `forward`, keeping the outputs until the next call."""
        self.outputs = {path: [] for path in self.cut.calls}
        self._active = True
        try:
            return forward(images)
        finally:
            self._active = False

    def keep(self, path: str, output: Any) -> None:
        """A module has put something out."""
        if self._active:
            self.outputs[path].append(output)

    def forget(self) -> None:
        """Let the tensors go."""
        self.outputs = {}


@dataclass
class _Keep:
    """A forward hook; a class, so that it can be copied."""

    recording: Recording
    path: str

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.recording.keep(self.path, output)


class Replay(nn.Module):
    """Stands for a module: its first calls give recorded outputs, further ones are computed."""

    def __init__(self, recording: Recording, path: str, own: nn.Module | None) -> None:
        super().__init__()
        self.path = path
        self.own = own
        self.calls = 0
        self._recording = (recording,)  # a tuple: shared by all copies, and in no state

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        (recording,) = self._recording
        self.calls += 1
        if self.calls <= recording.cut.calls[self.path][0]:
            return recording.outputs[self.path][self.calls - 1]
        assert self.own is not None
        return self.own(*args, **kwargs)


class Branch(nn.Module):
    """A network whose part before the cut is another one's, as recorded; see `make_branch`."""

    def __init__(self, network: nn.Module, replays: Sequence[Replay]) -> None:
        super().__init__()
        self.network = network
        self._replays = tuple(replays)  # they are in the network already

    def forward(self, images: Tensor) -> Tensor:
        """The logits `[B, C]` for the images whose forward was recorded."""
        for replay in self._replays:
            replay.calls = 0
        return logits_of(self.network(images))


@dataclass
class _Calls:
    """When each call of a module began and ended, counted in events of all modules."""

    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


def find_cut(network: nn.Module, sample: Tensor, name: str, path: str) -> Cut:
    """The cut of `network` where the tap `name` (module path `path`, maybe `:in`) has its tensor.

    sample: `[B, C, H, W]` for one forward. Raises ConfigError for a tap that is never reached and
    for a module with weights that is used on both sides.
    """
    calls = _watch(network, sample)
    own = calls[path.removesuffix(INPUT_SUFFIX)]
    times = own.begun if path.endswith(INPUT_SUFFIX) else own.ended
    if not times:
        raise ConfigError(f"The tap {name} is not reached when the network runs: name another.")
    found: dict[str, tuple[int, int]] = {}
    _collect(network, "", calls, times[-1], name, found)
    if not any(next(network.get_submodule(p).parameters(), None) is not None for p in found):
        raise ConfigError(f"Nothing with weights comes before the tap {name}: name a later one.")
    return Cut(name, found)


def make_branch(network: nn.Module, recording: Recording) -> Branch:
    """Make `network`, of the same kind as the recorded one, a branch; its trunk is thrown away."""
    replays = []
    for path, (before, total) in recording.cut.calls.items():
        own = network.get_submodule(path) if total > before else None
        replay = Replay(recording, path, own)
        network.set_submodule(path, replay)
        replays.append(replay)
    return Branch(network, replays)


def check_branch(network: nn.Module, branch: Branch, recording: Recording, sample: Tensor) -> None:
    """Raise ConfigError unless a branch with the network's own weights gives its very answers."""
    with dry_run(network), dry_run(branch):
        whole = logits_of(recording.run(network, sample))
        try:
            same = torch.equal(whole, branch(sample))
        except Exception as error:  # whatever the network's own code raises without its trunk
            raise _not_here(network, recording.cut) from error
    recording.forget()
    if not same:
        raise _not_here(network, recording.cut)


def _not_here(network: nn.Module, cut: Cut) -> ConfigError:
    return ConfigError(
        f"{type(network).__name__} cannot be cut at {cut.name}: what comes after reads more than "
        "what its modules put out before. Name another tap."
    )


def _watch(network: nn.Module, sample: Tensor) -> dict[str, _Calls]:
    """Every module's calls during one forward."""
    calls = {path: _Calls() for path, _ in network.named_modules()}
    clock = iter(range(10**9))
    handles = []
    for path, module in network.named_modules():
        own = calls[path]
        handles.append(
            module.register_forward_pre_hook(lambda m, a, own=own: own.begun.append(next(clock)))
        )
        handles.append(
            module.register_forward_hook(lambda m, a, o, own=own: own.ended.append(next(clock)))
        )
    try:
        with dry_run(network):
            network(sample)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _collect(
    module: nn.Module,
    prefix: str,
    calls: dict[str, _Calls],
    moment: int,
    name: str,
    found: dict[str, tuple[int, int]],
) -> None:
    """Add to `found` the outermost modules below `module` that finish by `moment`."""
    for child_name, child in module.named_children():
        path = f"{prefix}{child_name}"
        own = calls.get(path)
        if own is None:  # the same module under a second name
            continue
        before = sum(end <= moment for end in own.ended)
        if own.ended and before == len(own.ended):
            found[path] = (before, len(own.ended))
        elif before:
            if any(True for _ in (*child.parameters(), *child.buffers())):
                raise ConfigError(
                    f"The module {path} runs before and after the tap {name}: name another tap."
                )
            found[path] = (before, len(own.ended))
        elif not own.ended or own.begun[0] <= moment:
            _collect(child, f"{path}.", calls, moment, name, found)
