"""Networks that are cut from a larger one: fewer channels, fewer blocks.

A pruned network is described by what it is cut from and what remains: `widths` per module and kept
`blocks` per container. With both, it is rebuilt without the pruning library; without them, they are
derived from `ratio` and `depth` (`kdrun.models.pruning`). They do not depend on the weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kdrun.config.build import call, check_arguments
from kdrun.config.rules import PRUNED
from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.models.pretrained import untrained
from kdrun.ranges import Choices, Range
from kdrun.types import InputInfo

TEACHER, RANDOM = "teacher", "random"
DEFAULT_RATIO = 0.5

Fraction = Annotated[float | None, Range(low=0, below=1, usual="0.25 to 0.75")]
Widths = Mapping[str, Sequence[int]]
Blocks = Mapping[str, Sequence[int]]

# Attributes that hold the sizes of a module, in the order in which `widths` lists them.
SIZES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: ("out_channels", "in_channels", "groups"),
    nn.Linear: ("out_features", "in_features"),
    _BatchNorm: ("num_features",),
    nn.GroupNorm: ("num_channels", "num_groups"),
    nn.LayerNorm: ("normalized_shape",),
}


def pruned_network(
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    *,
    network: dict[str, Any] | None = None,
    ratio: Fraction = None,
    depth: Fraction = None,
    importance: Annotated[str, Choices(("magnitude", "batch_norm"))] = "magnitude",
    init: Annotated[str, Choices((TEACHER, RANDOM))] = TEACHER,
    widths: Widths | None = None,
    blocks: Blocks | None = None,
) -> nn.Module:
    """The network `network` (`_target_` and arguments) after pruning, with new weights.

    Images `[B, in_channels, H, W]` → logits `[B, num_classes]`. ratio: share of the channels that
    is removed from every layer; 0.5 if neither it nor `depth` is given. depth: share of the blocks
    removed. importance, init: which weights of the teacher it starts from (see
    `kdrun.distillation.pruned`); they do not change the architecture.
    Raises ConfigError for networks that cannot be pruned, MissingExtraError without torch-pruning
    if `widths` are unknown.
    """
    if network is None:
        raise ConfigError(
            "student=pruned is cut from its teacher: choose teacher=..., a network to prune; a "
            "teacher or a peer cannot be pruned."
        )
    arguments = untrained({key: value for key, value in network.items() if key != "_target_"})
    info = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    base: nn.Module = call(network["_target_"], arguments, "student.network", **info)
    if blocks is None or widths is None:
        from kdrun.models.pruning import structure

        widths, blocks = structure(base, (in_channels, *image_size), ratio, depth, importance)
    keep_blocks(base, blocks)
    resize(base, widths)
    return base


def with_architecture(student: NetworkConfig, info: InputInfo) -> NetworkConfig:
    """A pruned student with its `widths` and `blocks`; any other unchanged.

    Raises as `pruned_network` does.
    """
    settings = student.kwargs
    if student.target != PRUNED or "widths" in settings:
        return student
    from kdrun.models.pruning import structure

    check_arguments(pruned_network, settings, "student", {*vars(info)})
    built = {k: v for k, v in settings.items() if k not in ("ratio", "depth")}
    with torch.random.fork_rng(devices=[]):
        base = call(student.target, {**built, "widths": {}, "blocks": {}}, "student", **vars(info))
    ratio, depth = settings.get("ratio"), settings.get("depth")
    if ratio is None and depth is None:
        ratio = DEFAULT_RATIO
    image = (info.in_channels, *info.image_size)
    importance = settings.get("importance", "magnitude")
    widths, blocks = structure(base, image, ratio, depth, importance)
    chosen = {"ratio": ratio} if ratio is not None else {}
    return replace(student, kwargs={**settings, **chosen, "widths": widths, "blocks": blocks})


def keep_blocks(network: nn.Module, blocks: Blocks) -> None:
    """Remove all other blocks from the containers at these paths, and renumber declared taps."""
    for path, kept in blocks.items():
        if path == "blocks" and hasattr(network, "keep_blocks"):
            keep: Any = network.keep_blocks
            keep(kept)
            continue
        container = network.get_submodule(path)
        assert isinstance(container, nn.Sequential | nn.ModuleList)
        names = [name for name, _ in container.named_children()]
        for number, name in enumerate(names):
            if number not in kept:
                del container._modules[name]
        modules = list(container._modules.values())
        container._modules.clear()
        for number, module in enumerate(modules):
            container.add_module(str(number), module)
        _renumber_taps(network, path, kept)


def _renumber_taps(network: nn.Module, container: str, kept: Sequence[int]) -> None:
    """A tap in a removed block becomes that of the kept block before it."""
    taps = getattr(network, "taps", None)
    if not isinstance(taps, dict):
        return
    renumbered = {}
    for name, path in taps.items():
        head, _, rest = str(path).removeprefix(f"{container}.").partition(".")
        number, colon, side = head.partition(":")
        if str(path).startswith(f"{container}.") and number.isdecimal():
            new = max(sum(index <= int(number) for index in kept) - 1, 0)
            tail = f".{rest}" if rest else ""
            path = f"{container}.{new}{colon}{side}{tail}"
        renumbered[name] = path
    setattr(network, "taps", renumbered)  # noqa: B010 - declared by some networks only


def sizes(network: nn.Module) -> dict[str, list[int]]:
    """The sizes of every module and of every parameter that belongs to another module."""
    found = {}
    for path, module in network.named_modules():
        names = _size_names(module)
        if names:
            values = [getattr(module, name) for name in names]
            found[path] = [n for v in values for n in (v if isinstance(v, tuple) else (v,))]
        else:
            for name, parameter in module.named_parameters(recurse=False):
                found[f"{path}.{name}".lstrip(".")] = list(parameter.shape)
    return found


def resize(network: nn.Module, widths: Widths) -> None:
    """Give the modules at these paths other sizes: the leading part of their weights, rescaled.

    The scale keeps the variance of a layer's output for inputs of equal variance.
    """
    modules = dict(network.named_modules())
    for path, size in widths.items():
        module = modules.get(path)
        if module is None:
            parent, _, name = path.rpartition(".")
            owner = network.get_submodule(parent)
            setattr(owner, name, nn.Parameter(_leading(getattr(owner, name).detach(), size)))
        else:
            _resize_module(module, list(size))


def _resize_module(module: nn.Module, size: list[int]) -> None:
    names = _size_names(module)
    if isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(size)
    else:
        for name, value in zip(names, size, strict=True):
            setattr(module, name, value)
    for name, tensor in [*module.named_parameters(recurse=False)]:
        shape = _shape(module, name, tensor)
        cut = _leading(tensor.detach(), shape)
        if tensor.dim() > 1:
            cut *= math.sqrt(tensor[0].numel() / max(cut[0].numel(), 1))
        setattr(module, name, nn.Parameter(cut))
    for name, buffer in [*module.named_buffers(recurse=False)]:
        if buffer.dim():
            setattr(module, name, _leading(buffer, [size[0]]))


def _shape(module: nn.Module, name: str, tensor: Tensor) -> list[int]:
    if isinstance(module, nn.Conv2d) and name == "weight":
        per_group = module.in_channels // module.groups
        return [module.out_channels, per_group, *tensor.shape[2:]]
    if isinstance(module, nn.Linear) and name == "weight":
        return [module.out_features, module.in_features]
    if isinstance(module, nn.LayerNorm):
        return list(module.normalized_shape)
    return [getattr(module, _size_names(module)[0])]


def _leading(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A copy of the leading part of a tensor. Raises ConfigError if it is smaller."""
    if len(shape) != tensor.dim() or any(n > m for n, m in zip(shape, tensor.shape, strict=True)):
        raise ConfigError(
            f"student.widths asks for a tensor of shape {list(shape)} where the network has "
            f"{list(tensor.shape)}: they belong to another network."
        )
    return tensor[tuple(slice(n) for n in shape)].clone(memory_format=torch.contiguous_format)


def _size_names(module: nn.Module) -> tuple[str, ...]:
    return next((names for kind, names in SIZES.items() if isinstance(module, kind)), ())
