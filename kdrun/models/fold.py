"""Fold batch normalisation of a frozen network into the preceding convolutions.

In eval mode, batch normalisation is a fixed scale and shift per channel, which the convolution can
absorb: w' = w·γ/√(σ²+ε), b' = (b - μ)·γ/√(σ²+ε) + β. Equal up to rounding.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kdrun.errors import ConfigError
from kdrun.models.dry_run import dry_run
from kdrun.models.features.hooks import INPUT_SUFFIX
from kdrun.uncompiled import leave_alone

# Exact types only: a subclass may use its weights differently.
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
TOLERANCE = 1e-3  # relative to the largest logit; rounding errors are a thousand times smaller


def fold_batchnorm(network: nn.Module, sample: Tensor, taps: Iterable[str] = ()) -> int:
    """Fold BatchNorm layers in place wherever it is safe. Returns the number of folded layers.

    A dry run of `sample` `[B, C, H, W]` finds each BatchNorm whose input is the output of a
    convolution. The pair is folded if nothing else uses that tensor (no other operation, no tap
    `PATH` or `PATH:in`, not the caller), and if both run once and nothing else uses their weights.
    A folded BatchNorm becomes an `Identity`, so module paths stay valid. The network must be in
    eval mode.
    Raises ConfigError if the outputs of the folded network differ.
    """
    assert not network.training, "only a frozen network can be folded"
    taps = list(taps)
    before = _run(network, sample)
    pairs = foldable(network, sample, taps)
    for conv_path, norm_path in pairs.items():
        conv, norm = network.get_submodule(conv_path), network.get_submodule(norm_path)
        folded = fuse_conv_bn_eval(conv, norm)  # type: ignore[type-var,arg-type]
        conv.weight, conv.bias = folded.weight, folded.bias
        conv.requires_grad_(False)  # keep the module object: it may have hooks
        network.set_submodule(norm_path, nn.Identity())
    after = _run(network, sample)
    scale = max(float(before.abs().max()), 1e-12)
    if float((after - before).abs().max()) > TOLERANCE * scale:
        raise ConfigError("Folding changed the network's outputs: set teacher.fold=false.")
    return len(pairs)


def _run(network: nn.Module, sample: Tensor) -> Tensor:
    with dry_run(network):
        leaves = [leaf for leaf in tree_leaves(network(sample)) if isinstance(leaf, Tensor)]
    return leaves[0].float()


class _Uses(TorchDispatchMode):
    """Counts the operations that use each tensor as an input."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[int, int] = {}
        self.alive: list[Tensor] = []  # ids of freed tensors are reused

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs or {})):
            if isinstance(leaf, Tensor):
                self.alive.append(leaf)
                self.count[id(leaf)] = self.count.get(id(leaf), 0) + 1
        return func(*args, **(kwargs or {}))


leave_alone(_Uses.__torch_dispatch__)


class _Trace:
    """Calls of convolutions and norms in one forward pass; keeps tensors so that ids are unique."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.outputs: dict[int, str] = {}
        self.inputs: dict[str, Tensor] = {}
        self.extractor: set[int] = set()
        self.alive: list[Any] = []

    def watch(self, network: nn.Module, taps: Iterable[str]) -> list[Any]:
        handles = []
        for path, module in network.named_modules():
            if type(module) in (*CONVOLUTIONS, *NORMS):
                handles.append(module.register_forward_hook(self._hook(path)))
        for tap in taps:
            module = network.get_submodule(tap.removesuffix(INPUT_SUFFIX))
            handles.append(module.register_forward_hook(self._tap_hook(tap)))
        return handles

    def _hook(self, path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.calls[path] = self.calls.get(path, 0) + 1
            self.alive += [args, output]
            if isinstance(module, CONVOLUTIONS):
                self.outputs[id(output)] = path
            elif args:
                self.inputs[path] = args[0]

        return hook

    def _tap_hook(self, tap: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self.alive += [args, output]
            read = args if tap.endswith(INPUT_SUFFIX) else output
            self.extractor |= {id(leaf) for leaf in tree_leaves(read)}

        return hook


def foldable(network: nn.Module, sample: Tensor, taps: Iterable[str] = ()) -> dict[str, str]:
    """Convolution path → BatchNorm path for every pair that can be folded in eval mode."""
    trace, uses = _Trace(), _Uses()
    handles = trace.watch(network, taps)
    try:
        with dry_run(network), uses:
            output = network(sample)
    finally:
        for handle in handles:
            handle.remove()
    returned = {id(leaf) for leaf in tree_leaves(output)}
    owners = _owners(network)
    pairs = {}
    for norm_path, tensor in trace.inputs.items():
        conv_path = trace.outputs.get(id(tensor))
        if conv_path is None or id(tensor) in trace.extractor | returned:
            continue
        conv, norm = network.get_submodule(conv_path), network.get_submodule(norm_path)
        once = trace.calls[conv_path] == trace.calls[norm_path] == 1
        exclusive = uses.count.get(id(tensor), 0) == uses.count.get(id(conv.weight)) == 1
        parameters = (p for m in (conv, norm) for p in m.parameters(recurse=False))
        unshared = all(owners[id(parameter)] == 1 for parameter in parameters)
        if once and exclusive and unshared and norm.running_mean is not None:
            pairs[conv_path] = norm_path
    return pairs


def _owners(network: nn.Module) -> dict[int, int]:
    """Number of modules that own each parameter."""
    count: dict[int, int] = {}
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            count[id(parameter)] = count.get(id(parameter), 0) + 1
    return count
