"""Learning rate and weight decay per parameter: layer-wise decay, a slower backbone, no decay.

The optimiser is built with the usual groups; these are split by `lr_scale`, which
`set_learning_rate` multiplies with the schedule's rate (the name and meaning are timm's).
"""

from collections.abc import Iterator, Sequence

from torch import nn, optim
from torch.nn.modules.batchnorm import _BatchNorm

from kdrun.config.schema import ScheduleConfig

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)


def split_groups(
    optimizer: optim.Optimizer,
    network: nn.Module,
    schedule: ScheduleConfig,
    classifier: Sequence[str] = (),
) -> None:
    """Split the optimiser's groups by the schedule's settings for single parameters.

    network: the trained network; other parameters (adapters, peers) keep the full rate.
    classifier: names of its classifier's parameters, which keep the full rate, too.
    """
    scales = learning_rate_scales(network, schedule, classifier)
    if not scales and schedule.decay_norm_bias is None:
        return
    undecayed = parameters_without_decay(network)
    groups = []
    for group in optimizer.param_groups:
        parts: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            decay = group["weight_decay"]
            if schedule.decay_norm_bias is not None:
                excluded = parameter.ndim <= 1 or id(parameter) in undecayed
                decays = schedule.decay_norm_bias or not excluded
                decay = schedule.weight_decay if decays else 0.0
            parts.setdefault((scales.get(id(parameter), 1.0), decay), []).append(parameter)
        groups += [
            {**group, "params": params, "weight_decay": decay, "lr_scale": scale}
            for (scale, decay), params in parts.items()
        ]
    optimizer.param_groups[:] = groups


def learning_rate_scales(
    network: nn.Module, schedule: ScheduleConfig, classifier: Sequence[str] = ()
) -> dict[int, float]:
    """`id` of a parameter → factor of the learning rate; empty where all have the full rate.

    Layer i of n gets `layer_decay` ** (n - i), the classifier (layer n) 1 (Clark et al. 2020, arXiv
    2003.10555, section 3.1; BEiT, arXiv 2106.08254, appendix). All but the classifier are
    multiplied by `backbone_lr_factor`.
    """
    factor, decay = schedule.backbone_lr_factor, schedule.layer_decay
    if factor == decay == 1.0:
        return {}
    layers = parameter_layers(network, classifier)
    last = max(layers.values(), default=0)
    return {
        id(parameter): (1.0 if name in classifier else factor) * decay ** (last - layers[name])
        for name, parameter in network.named_parameters()
    }


def parameters_without_decay(network: nn.Module) -> set[int]:
    """`id` of the parameters that a network itself excludes, as timm's `no_weight_decay()`."""
    names: set[str] = getattr(network, "no_weight_decay", set)()
    return {id(p) for name, p in network.named_parameters() if name in names}


def parameter_layers(network: nn.Module, classifier: Sequence[str] = ()) -> dict[str, int]:
    """Name of each parameter → its layer, from 0 at the input; the classifier is the last one.

    A layer is a block of a stack (`nn.Sequential`, `nn.ModuleList`), whatever is nested in it; all
    before the first stack is the stem, layer 0. Normalisation belongs to the layer before it. On
    vision transformers and ResNets these are timm's groups (`param_groups_layer_decay`).
    """
    layers: dict[str, int] = {}
    layer, stacks = -1, 0
    for unit, is_norm, in_stack in _units(network, "", False):
        names = [name for name in unit if name not in classifier]
        if not names:
            continue
        first_of_stack = in_stack and not stacks
        joins_stem = not in_stack and not stacks and _has_stack(network)
        if layer < 0 or first_of_stack or not (is_norm or joins_stem):
            layer += 1
        stacks += in_stack
        layers |= dict.fromkeys(names, layer)
    return layers | dict.fromkeys(classifier, layer + 1)


# (names of the parameters, whether the unit is a normalisation layer, whether it is in a stack)
Unit = tuple[list[str], bool, bool]


def _units(module: nn.Module, prefix: str, in_stack: bool) -> Iterator[Unit]:
    """The layers of a network in order of registration, before normalisation layers are merged."""
    tokens = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)]
    if tokens:
        yield tokens, False, in_stack
    for name, child in module.named_children():
        path = f"{prefix}{name}."
        stacked = in_stack or isinstance(module, CONTAINERS)
        if isinstance(child, CONTAINERS) or _has_stack(child):
            yield from _units(child, path, stacked)
        else:
            names = [f"{path}{name}" for name, _ in child.named_parameters()]
            yield names, isinstance(child, NORMS), stacked


def _has_stack(module: nn.Module) -> bool:
    """Whether a module contains a stack of blocks, rather than being a block itself."""
    return any(
        isinstance(part, CONTAINERS)
        and (isinstance(part, nn.ModuleList) or sum(map(_is_block, part.children())) > 1)
        for part in module.modules()
    )


def _is_block(module: nn.Module) -> bool:
    """Whether it has parts, other than the convolution, norm and activation of a `Sequential`."""
    children = list(module.children())
    simple = isinstance(module, nn.Sequential) and not any(
        True for part in children for _ in part.children()
    )
    return bool(children) and not simple
