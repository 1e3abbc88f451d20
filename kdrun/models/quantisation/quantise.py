"""Quantise a network in place: forward passes compute on the integer grids of its deployment.

The modules stay what they are, so that taps, hooks, state dicts and optimisers work as for the
plain network. Hooks intercept the operations of each forward pass of the root module; the ranges of
the activations are buffers of its submodule `quantisers`.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from kdrun.errors import ConfigError
from kdrun.models.dry_run import dry_run
from kdrun.models.fold import foldable
from kdrun.models.quantisation.arithmetic import IntegerArithmetic, Quantisers, unquantised
from kdrun.models.quantisation.operations import (
    CONCATENATIONS,
    IN_PLACE,
    LAYERS,
    NAMES,
    is_layer,
    quantised_inputs,
)
from kdrun.models.quantisation.ranges import ActivationRange

SUBMODULE = "quantisers"


def quantise(network: nn.Module, kind: str, sample: Tensor, name: str = "network") -> None:
    """Quantise `network` in place. kind: int8 | w4a8. sample: images `[B, C, H, W]`.

    A dry run of the sample finds the operations; those that only happen in training mode stay in
    floating point. name: for messages.
    Raises ConfigError for a network without a convolution or linear layer.
    """
    quantisers = Quantisers(kind)
    with dry_run(network):
        quantisers.norms = foldable(network, sample)
    quantisers.modules_by_path = {
        path: network.get_submodule(path) for path in quantisers.norms.values()
    }
    quantisers.train(network.training)
    recorder = _Recorder({id(parameter): key for key, parameter in network.named_parameters()})
    quantisers.arithmetic = recorder
    for path, module in network.named_modules():
        hook = _Hook(quantisers, path)
        module.register_forward_pre_hook(hook.enter)
        module.register_forward_hook(hook.leave, always_call=True)
    setattr(network, SUBMODULE, quantisers)
    with dry_run(network):
        network(sample)
    quantisers.arithmetic = None
    if not quantisers.weights:
        raise ConfigError(
            f"student.quantize={kind}: {name} calls no convolution or linear layer that can be "
            "quantised: leave student.quantize out, or choose another student."
        )


def quantisers_of(network: nn.Module) -> Quantisers | None:
    """The quantisers of a network; None if it is not quantised."""
    quantisers = getattr(network, SUBMODULE, None)
    return quantisers if isinstance(quantisers, Quantisers) else None


def format_quantised(network: nn.Module) -> str:
    """How much of a network is quantised, in a sentence."""
    quantisers = quantisers_of(network)
    assert quantisers is not None
    names = set(quantisers.weights.values())
    text = f"{quantisers.kind}: {len(names)} layers and {len(quantisers)} activations quantised"
    left = unquantised(network, names)
    if not left:
        return text
    more = ", ..." if len(left) > 3 else ""
    return f"{text}; {len(left)} layers in full precision ({', '.join(left[:3])}{more})"


class _Recorder:
    """The arithmetic of the dry run: creates a range for every tensor, computes in floats."""

    def __init__(self, parameters: dict[int, str]) -> None:
        self.parameters = parameters

    def tensor(self, quantisers: Quantisers, name: str, values: Tensor) -> Tensor:
        quantisers[name] = ActivationRange().to(values.device)
        return values

    def as_float(self, quantised: Tensor) -> Tensor:
        return quantised

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        quantisers.weights[key] = self.parameters[id(args[1])]
        return run(*args)


class _Hook:
    """Hooks of one module. A class, so that networks can be deep-copied."""

    def __init__(self, quantisers: Quantisers, path: str) -> None:
        self.quantisers = quantisers
        self.path = path

    def enter(self, module: nn.Module, args: Any) -> None:
        quantisers = self.quantisers
        if not self.path and quantisers.is_active:
            if quantisers.training and quantisers.done >= quantisers.statistics_after:
                _freeze_statistics(module)
            forward = _Forward(quantisers)
            forward.__enter__()
            quantisers.forward_pass = forward
        if quantisers.forward_pass is not None:
            quantisers.forward_pass.path.append(self.path)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        forward = self.quantisers.forward_pass
        if forward is None:
            return
        forward.path.pop()
        if not self.path:
            self.quantisers.forward_pass = None
            forward.__exit__(None, None, None)


def _freeze_statistics(network: nn.Module) -> None:
    """Batch normalisation with running statistics until the next call of `train()`."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.training = False


@dataclass(frozen=True)
class _Seen:
    """A tensor that was quantised in this forward pass. version: to notice in-place changes."""

    source: Tensor
    version: int | None
    quantised: Any


class _Forward(TorchFunctionMode):
    """One forward pass: quantises the inputs of the operations that were recorded.

    A call is named by the path of the module in which it happens, its operation, and its number
    among the module's calls of that operation, so that operations that only happen in training
    change no name. A tensor that several operations read is quantised once.
    """

    def __init__(self, quantisers: Quantisers) -> None:
        super().__init__()
        self.quantisers = quantisers
        self.arithmetic = quantisers.current_arithmetic()
        self.records = isinstance(self.arithmetic, _Recorder)
        folds = isinstance(self.arithmetic, IntegerArithmetic)
        self.folded = frozenset(quantisers.norms.values()) if folds else frozenset()
        self.path: list[str] = []
        self.calls: Counter[str] = Counter()
        self.seen: dict[int, _Seen] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and self.path[-1] in self.folded:
            return args[0]
        count = quantised_inputs(func, args, kwargs) if func in NAMES else 0
        if not count or not self._is_quantised(key := self._name(func), func, args):
            return func(*args, **kwargs)
        if func in LAYERS:
            values = self._quantised(key, args[0])
            return self.arithmetic.layer(self.quantisers, key, func, [values, *args[1:]])
        return self._operation(key, func, args, kwargs, count)

    def _name(self, func: Callable[..., Any]) -> str:
        """Name of this call, e.g. `layer1/0/add`; of the third, `layer1/0/add2`."""
        path = self.path[-1].replace(".", "/")
        name = f"{path}/{NAMES[func]}" if path else NAMES[func]
        number = self.calls[name]
        self.calls[name] += 1
        return f"{name}{number or ''}"

    def _is_quantised(self, key: str, func: Callable[..., Any], args: Any) -> bool:
        if self.records and (func not in LAYERS or is_layer(args)):
            self.quantisers.calls.add(key)
        return key in self.quantisers.calls

    def _operation(
        self, key: str, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], count: int
    ) -> Any:
        """An operation other than a layer, on the first `count` tensors rounded to their grids."""
        tensors = args[0] if func in CONCATENATIONS else args[:count]
        values = [
            self.arithmetic.as_float(self._quantised(f"{key}_{number}", tensor))
            for number, tensor in enumerate(tensors)
        ]
        if func in CONCATENATIONS:
            return func(values, *args[1:], **kwargs)
        if kwargs.get("inplace"):
            kwargs = {**kwargs, "inplace": False}
        if func in IN_PLACE:
            return args[0].copy_(IN_PLACE[func](*values, *args[count:], **kwargs))
        return func(*values, *args[count:], **kwargs)

    def _quantised(self, name: str, values: Tensor) -> Any:
        seen = self.seen.get(id(values))
        if seen is not None and seen.version == _version(values):
            return seen.quantised
        quantised = self.arithmetic.tensor(self.quantisers, name, values)
        self.seen[id(values)] = _Seen(values, _version(values), quantised)
        return quantised


def _version(tensor: Tensor) -> int | None:
    """Number of in-place changes; None in inference mode, which does not count them."""
    return None if tensor.is_inference() else tensor._version
