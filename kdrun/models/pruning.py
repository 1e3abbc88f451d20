"""Which channels and blocks of a network to remove; uses torch-pruning.

Channels that depend on each other (residual connections, depthwise convolutions) are removed
together. Every layer loses the same share, so that the architecture does not depend on the weights.
Source: Fang et al., DepGraph (arXiv 2301.12900); `batch_norm` ranks channels by the scale of their
normalisation, Liu et al., Network Slimming (arXiv 1708.06519).
"""

import contextlib
import copy
import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError, MissingExtraError
from kdrun.models.dry_run import dry_run, logits_of
from kdrun.models.pruned import DEFAULT_RATIO, keep_blocks, sizes

TOLERANCE = 1e-3  # of the largest logit
ONLY_DEPTH = "remove blocks instead: student.depth=0.5."


def structure(
    network: nn.Module,
    image: tuple[int, ...],
    ratio: float | None,
    depth: float | None,
    importance: str,
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """(widths, blocks) of the pruned network, as `kdrun.models.pruned` takes them.

    image: `(C, H, W)`. Raises ConfigError for networks that cannot be pruned.
    """
    network = copy.deepcopy(network)
    if not ratio and not depth and (ratio, depth) != (None, None):
        raise ConfigError(
            "student=pruned removes nothing: set student.ratio=0.5 (channels) or student.depth=0.5 "
            "(blocks)."
        )
    if ratio is None and depth is None:
        ratio = DEFAULT_RATIO
    sample = torch.randn(2, *image, generator=torch.Generator().manual_seed(0))
    blocks = removable_blocks(network, sample, depth) if depth else {}
    keep_blocks(network, blocks)
    if not ratio:
        return {}, blocks
    before = sizes(network)
    pruned = prune_channels(network, sample, ratio, importance)
    after = sizes(pruned)
    return {path: size for path, size in after.items() if size != before[path]}, blocks


def prune_channels(network: nn.Module, sample: Tensor, ratio: float, importance: str) -> nn.Module:
    """A pruned copy of the network, with its weights. sample: `[B, C, H, W]`.

    Raises ConfigError if the copy does not compute what the network computes with the removed
    channels set to zero.
    """
    _require_convolutions(network)
    tp = _torch_pruning()
    pruned = copy.deepcopy(network).cpu().eval().requires_grad_(True)
    zeroed = copy.deepcopy(pruned)
    names = {module: name for name, module in pruned.named_modules()}
    try:
        with _quiet():
            _prune(tp, pruned, sample, ratio, importance, names, zeroed)
            with dry_run(pruned), dry_run(zeroed):
                found, expected = logits_of(pruned(sample)), logits_of(zeroed(sample))
    except ConfigError:
        raise
    except Exception as error:  # the library raises anything for what it cannot follow
        raise ConfigError(
            f"The channels of this network cannot be pruned ({type(error).__name__} in "
            f"torch-pruning): {ONLY_DEPTH}"
        ) from error
    if not _has_other_norms(network):
        scale = float(expected.abs().max()) or 1.0
        if float((found - expected).abs().max()) > TOLERANCE * scale:
            raise ConfigError(
                "The channels of this network cannot be pruned: torch-pruning loses their order "
                f"(a channel shuffle, for example): {ONLY_DEPTH}"
            )
    return pruned.train(network.training)


def _prune(
    tp: Any,
    pruned: nn.Module,
    sample: Tensor,
    ratio: float,
    importance: str,
    names: dict[nn.Module, str],
    zeroed: nn.Module,
) -> None:
    """Prune in place; the same channels of `zeroed` become zero."""
    ranks = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "batch_norm": tp.importance.BNScaleImportance,
    }
    pruner = tp.pruner.BasePruner(
        pruned,
        sample,
        importance=ranks[importance](),
        pruning_ratio=ratio,
        ignored_layers=_classifiers(pruned, sample),
    )
    count = 0
    for group in pruner.step(interactive=True):
        for dependency, index in group:
            if pruner.DG.is_out_channel_pruning_fn(dependency.handler):
                _zero(zeroed, names.get(dependency.target.module), index)
        group.prune()
        count += 1
    if not count:
        raise ConfigError(
            "No layer of this network has channels that can be removed with "
            f"student.importance={importance}: choose another importance, or student.depth=0.5."
        )


def _zero(network: nn.Module, name: str | None, index: list[int]) -> None:
    """Set output channels of a module to zero, in its weights and biases."""
    if name is None:
        return
    with torch.no_grad():
        for parameter in network.get_submodule(name).parameters(recurse=False):
            parameter[index] = 0.0


def _classifiers(network: nn.Module, sample: Tensor) -> list[nn.Module]:
    """The layers whose outputs are the classes: those that end with as many as the logits."""
    last: list[nn.Module] = []
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(lambda m, *_: last.append(m)) for layer in layers]
    with dry_run(network):
        classes = logits_of(network(sample)).shape[1]
    for handle in handles:
        handle.remove()
    sized = [
        m for m in last if getattr(m, "out_features", getattr(m, "out_channels", 0)) == classes
    ]
    return sized[-1:]


def removable_blocks(network: nn.Module, sample: Tensor, depth: float) -> dict[str, list[int]]:
    """The blocks to keep: container path → indices, at least one block of each container.

    A block can be removed if it is one of several of its class and keeps the shape of its input.
    Those that remain are spread evenly. Raises ConfigError if no block can be removed.
    """
    shapes = _input_and_output_shapes(network, sample)
    kept = {}
    for path, container in network.named_modules():
        if not isinstance(container, nn.Sequential | nn.ModuleList):
            continue
        children = list(container)
        removable = [
            number
            for number, child in enumerate(children)
            if list(child.children())
            and sum(type(other) is type(child) for other in children) > 1
            and child in shapes
            and shapes[child][0] == shapes[child][1]
        ]
        if not removable:
            continue
        fixed = [number for number in range(len(children)) if number not in removable]
        alike = sum(type(child) is type(children[removable[0]]) for child in children)
        count = min(round(alike * depth), len(removable) - (not fixed))
        if count > 0:
            left = len(removable) - count
            spread = [removable[len(removable) * i // left] for i in range(left)]
            kept[path] = sorted([*fixed, *spread])
    inside = {p for p in kept for q in kept if p != q and p.startswith(f"{q}.")}
    kept = {path: numbers for path, numbers in kept.items() if path not in inside}
    if not kept:
        raise ConfigError(
            f"student.depth={depth:g} removes no block: this network has no stage with several "
            "equal blocks. Remove channels instead: student.ratio=0.5."
        )
    return kept


def _input_and_output_shapes(
    network: nn.Module, sample: Tensor
) -> dict[nn.Module, tuple[torch.Size, torch.Size]]:
    shapes: dict[nn.Module, tuple[torch.Size, torch.Size]] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            shapes[module] = (inputs[0].shape, output.shape)

    handles = [module.register_forward_hook(record) for module in network.modules()]
    with dry_run(network):
        network(sample)
    for handle in handles:
        handle.remove()
    return shapes


def _require_convolutions(network: nn.Module) -> None:
    attention = any("attention" in type(module).__name__.lower() for module in network.modules())
    if attention:
        raise ConfigError(
            f"student.ratio is for convolutional networks; of a transformer, {ONLY_DEPTH}"
        )
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        raise ConfigError("student=pruned needs a convolutional teacher or a transformer.")


def _has_other_norms(network: nn.Module) -> bool:
    return any(isinstance(module, nn.LayerNorm | nn.GroupNorm) for module in network.modules())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _torch_pruning() -> ModuleType:
    try:
        return importlib.import_module("torch_pruning")
    except ModuleNotFoundError as error:
        if error.name != "torch_pruning":
            raise
        raise MissingExtraError(
            "torch-pruning", "prune", "student=pruned with student.ratio"
        ) from None
