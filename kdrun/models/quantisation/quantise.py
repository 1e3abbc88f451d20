"""Quantise a network in place: forward passes compute on the integer grids of its deployment.

The modules stay what they are, so that taps, hooks, state dicts and optimisers work as for the
plain network. Hooks intercept the operations of each forward pass of the root module; the ranges of
the activations are buffers of its submodule `quantisers`.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

from kdrun.errors import ConfigError
from kdrun.models.dry_run import dry_run
from kdrun.models.fold import foldable
from kdrun.models.quantisation.arithmetic import IntegerArithmetic, Quantisers, unquantised
from kdrun.models.quantisation.operations import (
    BATCH_NORM,
    LAYERS,
    NAMES,
    Operation,
    is_in_place,
    is_layer,
    layer_arguments,
    quantised_inputs,
)
from kdrun.models.quantisation.ranges import ActivationRange
from kdrun.models.quantisation.readers import PASSING, Identity, Readers, identities, identity

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
        recorder.readers.returned(network(sample))
    quantisers.readers = recorder.readers.found()
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
        self.readers = Readers()

    def reads_parameters(self, quantisers: Quantisers, inputs: Any, output: Any) -> None:
        """An operation in floating point; one that returns no tensor (a shape) reads nothing."""
        if identities(output):
            read = {id(leaf) for leaf in tree_leaves(inputs) if isinstance(leaf, nn.Parameter)}
            quantisers.read_as_floats |= {
                self.parameters[key] for key in read & set(self.parameters)
            }

    def tensor(self, quantisers: Quantisers, name: str, values: Tensor) -> Tensor:
        quantisers[name] = ActivationRange().to(values.device)
        self.readers.rounds(name, values)
        return values

    def layer(
        self, quantisers: Quantisers, key: str, run: Callable[..., Tensor], args: list[Any]
    ) -> Tensor:
        quantisers.weights[key] = self.parameters[id(args[1])]
        output = run(*args)
        self.readers.result(key, output)
        return output

    def operation(
        self, quantisers: Quantisers, key: str, operation: Operation, tensors: list[Tensor]
    ) -> Tensor:
        output = operation.on(tensors)
        self.readers.result(key, output)
        return output


class _Hook:
    """Hooks of one module. A class, so that networks can be deep-copied."""

    def __init__(self, quantisers: Quantisers, path: str) -> None:
        self.quantisers = quantisers
        self.path = path

    def enter(self, module: nn.Module, args: Any) -> Any:
        quantisers = self.quantisers
        if not self.path and quantisers.is_active:
            if quantisers.training and quantisers.done >= quantisers.statistics_after:
                _freeze_statistics(module)
            forward = _Forward(quantisers)
            args = forward.begin(args)
            quantisers.forward_pass = forward
        if quantisers.forward_pass is not None:
            quantisers.forward_pass.path.append(self.path)
        return args

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        forward = self.quantisers.forward_pass
        if forward is None:
            return
        forward.path.pop()
        if not self.path:
            self.quantisers.forward_pass = None
            forward.end()


def _freeze_statistics(network: nn.Module) -> None:
    """Batch normalisation with running statistics until the next call of `train()`."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.training = False


@dataclass(frozen=True)
class _Seen:
    """A tensor that was quantised in this forward pass. source: kept, for ids are reused."""

    source: Tensor
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
        self.folds = isinstance(self.arithmetic, IntegerArithmetic)
        self.guards = ExitStack()
        self.path: list[str] = []
        self.calls: Counter[str] = Counter()
        self.seen: dict[Identity, _Seen] = {}

    def begin(self, args: Any) -> Any:
        """Intercept all operations from now on. Returns the network's inputs.

        Inference mode counts no in-place changes, by which tensors are recognised: it is replaced
        by `no_grad`.
        """
        if torch.is_inference_mode_enabled():
            self.guards.enter_context(torch.inference_mode(False))
            self.guards.enter_context(torch.no_grad())
            args = tree_map_only(Tensor, torch.clone, args)
        self.guards.enter_context(self)
        return args

    def end(self) -> None:
        """Intercept no more."""
        self.guards.close()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is BATCH_NORM and self.path[-1] in self.quantisers.norms.values():
            return args[0] if self.folds else self._call(func, args, kwargs, is_folded=True)
        if func in LAYERS:
            args, kwargs = layer_arguments(*args, **kwargs), {}
        count = quantised_inputs(func, args, kwargs) if func in NAMES else 0
        if not count or not self._is_quantised(key := self._name(func), func, args):
            return self._call(func, args, kwargs)
        if func in LAYERS:
            values = self._quantised(key, args[0])
            return self.arithmetic.layer(self.quantisers, key, func, [values, *args[1:]])
        operation = Operation.of(func, args, kwargs, count)
        values = [self._quantised(f"{key}_{n}", one) for n, one in enumerate(operation.tensors)]
        output = self.arithmetic.operation(self.quantisers, key, operation, values)
        if is_in_place(func, args, kwargs):
            return self._call(torch.Tensor.copy_, (args[0], output), {})
        return output

    def _call(
        self,
        func: Callable[..., Any],
        args: Any,
        kwargs: dict[str, Any],
        is_folded: bool = False,
    ) -> Any:
        """An operation in floating point. is_folded: a batch normalisation that is."""
        if not isinstance(self.arithmetic, _Recorder):
            return func(*args, **kwargs)
        tensors = identities(
            args[1] if func is torch.Tensor.copy_ else args[0] if is_folded else (args, kwargs)
        )
        output = func(*args, **kwargs)
        self.arithmetic.readers.reads(tensors, output, is_folded or func in PASSING)
        self.arithmetic.reads_parameters(self.quantisers, (args, kwargs), output)
        return output

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

    def _quantised(self, name: str, values: Tensor) -> Any:
        seen = self.seen.get(key := identity(values))
        if seen is not None:
            return seen.quantised
        quantised = self.arithmetic.tensor(self.quantisers, name, values)
        self.seen[key] = _Seen(values, quantised)
        return quantised
