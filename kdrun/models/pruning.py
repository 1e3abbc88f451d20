"""Which channels of a network to remove, and with its blocks what remains; uses torch-pruning.

Channels that depend on each other (residual connections, depthwise convolutions) are removed
together. Every layer loses the same share, so that the architecture does not depend on the weights.
Source: Fang et al., DepGraph (arXiv 2301.12900); `batch_norm` ranks channels by the scale of their
normalisation, Liu et al., Network Slimming (arXiv 1708.06519).
"""

import contextlib
import copy
import importlib
import math
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError, MissingExtraError
from kdrun.models.block_removal import CannotPruneError, removable_blocks
from kdrun.models.dry_run import dry_run, logits_of, run_with_hook
from kdrun.models.pruned import DEFAULT_RATIO, keep_blocks, sizes

TOLERANCE = 1e-3  # of the largest logit
DEPTH = 0.5  # that messages propose


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
    try:
        blocks = removable_blocks(network, sample, depth) if depth else {}
    except CannotPruneError as error:
        raise ConfigError(f"{error} {_channels_instead(network, sample)}") from error
    shorter = copy.deepcopy(network)
    keep_blocks(shorter, blocks)
    if not ratio:
        return {}, blocks
    before = sizes(shorter)
    _as_if_trained(shorter)
    try:
        pruned = prune_channels(shorter, sample, ratio, importance)
    except CannotPruneError as error:
        raise ConfigError(f"{error} {_blocks_instead(network, sample)}") from error
    after = sizes(pruned)
    return {path: size for path, size in after.items() if size != before[path]}, blocks


def _as_if_trained(network: nn.Module) -> None:
    """Replace constant weights, so that the check finds what it would find after training.

    New networks may have scales of zero, which hide the layers before them.
    """
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if bool((parameter == parameter.flatten()[0]).all()):
                parameter.copy_(torch.rand(parameter.shape, generator=draw) + 0.5)


def _channels_instead(network: nn.Module, sample: Tensor) -> str:
    """The advice for a network whose blocks cannot be removed, after trying it."""
    advice = f"Remove channels instead: student.ratio={DEFAULT_RATIO:g}."
    try:
        prune_channels(network, sample, DEFAULT_RATIO, "magnitude")
    except MissingExtraError:
        return f"{advice[:-1]}, with pip install 'kdrun[prune]', if the network allows it."
    except ConfigError:
        return "Its channels cannot be removed either: choose another teacher."
    return advice


def _blocks_instead(network: nn.Module, sample: Tensor) -> str:
    """The advice for a network whose channels cannot be removed, after trying it."""
    try:
        removable_blocks(network, sample, DEPTH)
    except ConfigError:
        return "Its blocks cannot be removed either: choose another teacher."
    return f"Remove blocks instead: student.depth={DEPTH:g}."


def prune_channels(network: nn.Module, sample: Tensor, ratio: float, importance: str) -> nn.Module:
    """A pruned copy of the network, with its weights. sample: `[B, C, H, W]`.

    Raises CannotPruneError if the copy does not compute what the network computes with the removed
    channels set to zero, ConfigError if the ratio removes nothing.
    """
    _require_convolutions(network)
    tp = _torch_pruning()
    pruned = copy.deepcopy(network).cpu().eval().requires_grad_(True)
    zeroed = copy.deepcopy(pruned)
    names = {module: name for name, module in pruned.named_modules()}
    try:
        with _quiet():
            _prune(tp, pruned, sample, ratio, importance, names, zeroed)
            found, expected = _without_norms(pruned, network), _without_norms(zeroed, network)
            with dry_run(found), dry_run(expected):
                logits, wanted = logits_of(found(sample)), logits_of(expected(sample))
    except ConfigError:
        raise
    except Exception as error:  # the library raises anything for what it cannot follow
        raise CannotPruneError(
            f"The channels of this network cannot be pruned ({type(error).__name__} in "
            "torch-pruning)."
        ) from error
    scale = float(wanted.abs().max()) or 1.0
    if not float((logits - wanted).abs().max()) <= TOLERANCE * scale:  # also for NaN
        raise CannotPruneError(
            "The channels of this network cannot be pruned: without them it does not compute what "
            "it computes with zeros in their place. Either torch-pruning loses their order (a "
            "channel shuffle) or a layer makes something else of zeros (softplus, sigmoid)."
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
    """Prune in place; the same channels of `zeroed` become zero.

    The library's own selection leaves layers whole that would lose all channels, and removes one
    channel at any ratio.
    """
    ranks = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "batch_norm": tp.importance.BNScaleImportance,
    }
    pruner = tp.pruner.BasePruner(
        pruned,
        sample,
        importance=ranks[importance](),
        ignored_layers=_classifiers(pruned, sample),
        in_channel_groups={},
        out_channel_groups={},
    )
    graph, layers = pruner.DG, list(_ranked(pruner))
    count, widest = 0, max((len(scores) for *_, scores in layers), default=1)
    for module, function, groups, scores in layers:
        lost = min(math.floor(len(scores) * ratio + 0.5), len(scores) - 1)
        chosen = scores.topk(lost, largest=False).indices.tolist()
        index = sorted(i + number * len(scores) for i in chosen for number in range(groups))
        group = graph.get_pruning_group(module, function, index) if index else None
        if group is None or not graph.check_pruning_group(group):
            continue
        for dependency, places in group:
            if graph.is_out_channel_pruning_fn(dependency.handler):
                _zero(zeroed, names.get(dependency.target.module), places)
        group.prune()
        count += 1
    if count:
        return
    if widest * ratio < 0.5 and widest > 1:
        least = math.ceil(500 / widest) / 1000
        raise ConfigError(
            f"student.ratio={ratio:g} is too small for this network: it rounds to no channel of "
            f"any layer, and the smallest ratio that removes one is {least:g}."
        )
    if importance == "batch_norm":
        raise CannotPruneError(
            "No layer of this network has channels that student.importance=batch_norm can rank: "
            "student.importance=magnitude needs no normalisation."
        )
    raise CannotPruneError("No layer of this network has channels that can be removed.")


def _ranked(pruner: Any) -> Iterator[tuple[nn.Module, Any, int, Tensor]]:
    """(layer, function that prunes it, channel groups, scores of a group's channels) of each layer.

    Layers that depend on each other are one. Of all channel groups the same channels go.
    """
    layers = pruner.DG.get_all_groups(
        ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
    )
    for group in layers:
        with torch.no_grad():
            scores = pruner.estimate_importance(group)
        if scores is not None:
            groups = pruner._get_channel_groups(group)
            root = group[0][0]
            yield root.target.module, root.handler, groups, scores.view(groups, -1).mean(dim=0)


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
    output = run_with_hook(network, sample, lambda m, *_: last.append(m), layers)
    classes = logits_of(output).shape[1]
    sized = [
        m for m in last if getattr(m, "out_features", getattr(m, "out_channels", 0)) == classes
    ]
    return sized[-1:]


class _Scale(nn.Module):
    """In place of a normalisation over channels: zeros that are added do not change its output.

    channels: of the whole network; the pruned one divides by as many.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`[B, ...]` → the same shape, scaled per sample."""
        power = x.flatten(1).square().sum(dim=1) / self.channels
        return x / (power + 1e-6).sqrt().view(-1, *[1] * (x.dim() - 1))


def _without_norms(network: nn.Module, whole: nn.Module) -> nn.Module:
    """A copy of a part of the network `whole`, for comparisons: no layer depends on zeros."""
    network = copy.deepcopy(network)
    for path, module in whole.named_modules():
        parent, _, name = path.rpartition(".")
        if isinstance(module, nn.LayerNorm):
            stand_in = _Scale(math.prod(module.normalized_shape))
        elif isinstance(module, nn.GroupNorm):
            stand_in = _Scale(module.num_channels)
        elif type(module).__name__ == "GlobalResponseNorm":  # of ConvNeXt V2 in timm
            stand_in = _Scale(module.get_parameter("weight").numel())
        else:
            continue
        setattr(network.get_submodule(parent), name, stand_in)
    return network


def _require_convolutions(network: nn.Module) -> None:
    attention = any("attention" in type(module).__name__.lower() for module in network.modules())
    if attention:
        raise CannotPruneError("student.ratio is for convolutional networks, not for transformers.")
    if not any(isinstance(module, nn.Conv2d) for module in network.modules()):
        raise ConfigError("student=pruned needs a convolutional teacher or a transformer.")


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
