"""Split a network at a tap, so that several branches share one forward pass of the trunk.

Works for any network and tap, however its forward is written. One observed forward pass shows which
modules finish before the tap. In a branch (a second network of the same architecture), these
modules replay the recorded outputs of the trunk, so its forward runs the same code but computes
only the layers after the cut.
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
    """The module calls before the tap `name`.

    calls: module path → (calls before the cut, all calls). Lists only outermost modules, without
    the children of a module that is entirely before the cut.
    """

    name: str
    calls: Mapping[str, tuple[int, int]]


class Recording:
    """Outputs of the modules before a cut, from one forward pass of the trunk network."""

    def __init__(self, network: nn.Module, cut: Cut) -> None:
        self.cut = cut
        self.outputs: dict[str, list[Any]] = {}
        self._active = False
        for path in cut.calls:
            network.get_submodule(path).register_forward_hook(_Keep(self, path))

    def run(self, forward: Callable[[Tensor], Any], images: Tensor) -> Any:
        """Call `forward` of the recorded network; outputs are kept until the next call."""
        self.outputs = {path: [] for path in self.cut.calls}
        self._active = True
        try:
            return forward(images)
        finally:
            self._active = False

    def keep(self, path: str, output: Any) -> None:
        """Record an output of the module at `path`."""
        if self._active:
            self.outputs[path].append(output)

    def forget(self) -> None:
        """Release the recorded tensors."""
        self.outputs = {}


@dataclass
class _Keep:
    """A forward hook. A class, so that networks can be deep-copied."""

    recording: Recording
    path: str

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.recording.keep(self.path, output)


class Replay(nn.Module):
    """Replaces a module: the first calls return recorded outputs, later ones are computed."""

    def __init__(self, recording: Recording, path: str, module: nn.Module | None) -> None:
        super().__init__()
        self.path = path
        self.own = module  # the attribute name is part of state dicts
        self.calls = 0
        self._recording = (recording,)  # a tuple: shared by copies, and not part of the state

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        (recording,) = self._recording
        self.calls += 1
        if self.calls <= recording.cut.calls[self.path][0]:
            return recording.outputs[self.path][self.calls - 1]
        assert self.own is not None
        return self.own(*args, **kwargs)


class Branch(nn.Module):
    """A network that replays the recorded trunk of another one; see `make_branch`."""

    def __init__(self, network: nn.Module, replays: Sequence[Replay]) -> None:
        super().__init__()
        self.network = network
        self._replays = tuple(replays)  # already registered in the network

    def forward(self, images: Tensor) -> Tensor:
        """The logits `[B, C]` for the images whose forward was recorded."""
        for replay in self._replays:
            replay.calls = 0
        return logits_of(self.network(images))


@dataclass
class _Calls:
    """Start and end of each call of a module, as event numbers over all modules."""

    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)


def find_cut(network: nn.Module, sample: Tensor, name: str, path: str) -> Cut:
    """The cut of `network` at the tap `name` (module path `path`, possibly with `:in`).

    sample: `[B, C, H, W]` for one forward pass. Raises ConfigError for a tap that is never reached
    and for a module with weights that runs on both sides.
    """
    calls = _watch(network, sample)
    tap_calls = calls[path.removesuffix(INPUT_SUFFIX)]
    times = tap_calls.begun if path.endswith(INPUT_SUFFIX) else tap_calls.ended
    if not times:
        raise ConfigError(f"The tap {name} is not reached when the network runs: use another.")
    before: dict[str, tuple[int, int]] = {}
    _collect(network, "", calls, times[-1], name, before)
    if not any(next(network.get_submodule(p).parameters(), None) is not None for p in before):
        raise ConfigError(f"No module with weights comes before the tap {name}: use a later one.")
    return Cut(name, before)


def make_branch(network: nn.Module, recording: Recording) -> Branch:
    """Turn `network`, of the recorded architecture, into a branch; discards its trunk."""
    replays = []
    for path, (before, total) in recording.cut.calls.items():
        module = network.get_submodule(path) if total > before else None
        replay = Replay(recording, path, module)
        network.set_submodule(path, replay)
        replays.append(replay)
    return Branch(network, replays)


def check_branch(network: nn.Module, branch: Branch, recording: Recording, sample: Tensor) -> None:
    """Raise ConfigError unless a branch with the network's weights reproduces its outputs."""
    with dry_run(network), dry_run(branch):
        whole = logits_of(recording.run(network, sample))
        try:
            same = torch.equal(whole, branch(sample))
        except Exception as error:  # user networks may raise anything
            raise _not_here(network, recording.cut) from error
    recording.forget()
    if not same:
        raise _not_here(network, recording.cut)


def _not_here(network: nn.Module, cut: Cut) -> ConfigError:
    return ConfigError(
        f"{type(network).__name__} cannot be split at {cut.name}: later layers use more than the "
        "outputs of earlier modules. Use another tap."
    )


def _watch(network: nn.Module, sample: Tensor) -> dict[str, _Calls]:
    """Every module's calls during one forward."""
    calls = {path: _Calls() for path, _ in network.named_modules()}
    clock = iter(range(10**9))
    handles = []
    for path, module in network.named_modules():
        events = calls[path]
        handles.append(
            module.register_forward_pre_hook(lambda m, a, e=events: e.begun.append(next(clock)))
        )
        handles.append(
            module.register_forward_hook(lambda m, a, o, e=events: e.ended.append(next(clock)))
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
    cut: dict[str, tuple[int, int]],
) -> None:
    """Add the outermost modules below `module` that finish by `moment` to `cut`."""
    for child_name, child in module.named_children():
        path = f"{prefix}{child_name}"
        events = calls.get(path)
        if events is None:  # the same module under a second name
            continue
        before = sum(end <= moment for end in events.ended)
        if events.ended and before == len(events.ended):
            cut[path] = (before, len(events.ended))
        elif before:
            if any(True for _ in (*child.parameters(), *child.buffers())):
                raise ConfigError(
                    f"The module {path} runs before and after the tap {name}: use another tap."
                )
            cut[path] = (before, len(events.ended))
        elif not events.ended or events.begun[0] <= moment:
            _collect(child, f"{path}.", calls, moment, name, cut)
