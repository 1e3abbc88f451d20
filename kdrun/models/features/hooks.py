"""Forward hooks that capture tensors of a running network."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kdrun.errors import ConfigError

INPUT_SUFFIX = ":in"


class Record:
    """Tensors captured during one forward pass; inactive and empty otherwise."""

    def __init__(self) -> None:
        self.active = False
        self.expected: list[str] = []
        self.tensors: dict[str, Tensor] = {}
        self.versions: dict[str, int] = {}

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        self.active = False
        self.tensors = {}
        self.versions = {}

    def read(self, name: str, value: Any) -> None:
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"The tap '{name}' is a {type(value).__name__}, not a tensor: use a module inside "
                "or around it."
            )
        self.tensors[name] = value
        if _has_version(value):
            self.versions[name] = value._version

    def take(self) -> dict[str, Tensor]:
        for name in self.expected:
            if name not in self.tensors:
                raise ConfigError(
                    f"The tap '{name}' is not reached when the network runs: use another module."
                )
            tensor = self.tensors[name]
            if name in self.versions and self.versions[name] != tensor._version:
                raise ConfigError(
                    f"The network modifies the tensor of the tap '{name}' in place: use the module "
                    "after it, or build the network with inplace=False."
                )
        return self.tensors


class Hook:
    """Captures a module's output or first input. A class, so that networks can be deep-copied."""

    def __init__(self, record: Record, name: str) -> None:
        self.record = record
        self.name = name

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, *output: Any) -> None:
        if not self.record.active:
            return
        if output:
            self.record.read(self.name, output[0])
            return
        value = next(iter((*args, *kwargs.values())))
        if getattr(module, "inplace", False) and isinstance(value, Tensor):
            value = value.clone()  # the module overwrites its input
        self.record.read(self.name, value)


def _has_version(tensor: Tensor) -> bool:
    """Whether torch counts in-place changes: not while compiling or in inference mode."""
    return not torch.compiler.is_compiling() and not tensor.is_inference()


def attach(network: nn.Module, paths: Mapping[str, str], record: Record) -> list[RemovableHandle]:
    """Register a hook for every name → module path (`PATH:in`: the module's first input)."""
    record.expected = list(paths)
    handles = []
    for name, path in paths.items():
        module = network.get_submodule(path.removesuffix(INPUT_SUFFIX))
        hook = Hook(record, name)
        if path.endswith(INPUT_SUFFIX):
            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        else:
            handles.append(module.register_forward_hook(hook, with_kwargs=True))
    return handles
