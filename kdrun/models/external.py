"""Networks of torchvision and timm by name, fitted to the data's classes and channels.

A first convolution for another number of channels than its weights are for gets them summed (one
channel) or repeated in turn and scaled by 3 / channels (any other number), which keeps the size
of its response. Pretrained networks say in `network.normalisation` which constants their weights
expect; for one channel these are the means of the three, for other numbers they repeat.

In-place activations are replaced by ordinary ones, so that every module can be tapped.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError, MissingExtraError, did_you_mean
from kdrun.types import Normalisation
from kdrun.variables import variable
from kdrun.vision import import_torchvision

# Their second classifier, used by their own training recipe only, makes the output a tuple.
WITH_AUXILIARY = ("googlenet", "inception_v3")
# PyTorch's own variable, which stands above what the caller of torch.load says.
WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def torchvision_network(
    architecture: str,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    pretrained: bool = False,
) -> nn.Module:
    """A classification network of torchvision, images `[B, in_channels, H, W]` → `[B, classes]`.

    architecture: its name in torchvision, e.g. resnet18.
    pretrained: start from torchvision's best weights for it, downloaded once; the classifier is
    new unless the class count is the weights' own.
    Raises ConfigError for unknown names, sizes that do not fit, and weights that cannot be had.
    """
    models = import_torchvision().models
    known = models.list_models(module=models)
    _check_name(architecture, known, "torchvision")
    options: dict[str, Any] = {}
    if architecture.startswith("vit_"):
        options["image_size"] = _square(architecture, image_size)
    if not pretrained:
        if architecture in WITH_AUXILIARY:
            options |= {"aux_logits": False, "init_weights": True}
        network = _build(
            architecture, models.get_model, architecture, num_classes=num_classes, **options
        )
        return _finish(_with_channels(network, in_channels))
    weights = models.get_model_weights(architecture).DEFAULT
    _check_pretrained_size(architecture, options, weights)
    network = _download(architecture, models.get_model, architecture, weights=weights, **options)
    if len(weights.meta["categories"]) != num_classes:
        _replace_classifier(network, len(weights.meta["categories"]), num_classes)
    constants = weights.transforms()
    network.normalisation = _constants(constants.mean, constants.std, in_channels)
    return _finish(_with_channels(network, in_channels))


def timm_network(
    architecture: str,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    pretrained: bool = False,
) -> nn.Module:
    """A network of timm, images `[B, in_channels, H, W]` → logits `[B, num_classes]`.

    architecture: its name in timm, e.g. resnet18 or vit_tiny_patch16_224.
    pretrained: start from timm's default weights for it, downloaded once; the classifier is new
    unless the class count is the weights' own.
    Raises MissingExtraError without timm, and ConfigError as `torchvision_network` does.
    """
    timm = _import_timm()
    _check_name(architecture.split(".")[0], timm.list_models(), "timm")
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    pretrained_cfg = timm.models.get_pretrained_cfg(architecture)
    if pretrained_cfg is not None and pretrained_cfg.fixed_input_size:
        options["img_size"] = tuple(image_size)
    build = _download if pretrained else _build
    network = build(architecture, timm.create_model, architecture, pretrained, **options)
    if pretrained:
        constants = network.pretrained_cfg
        network.normalisation = _constants(constants["mean"], constants["std"], in_channels)
    return _finish(network)


def _import_timm() -> ModuleType:
    import_torchvision()  # timm imports it, and it may need help
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingExtraError("timm", "timm", "A timm network") from None


def _check_name(architecture: str, known: Sequence[str], library: str) -> None:
    if architecture not in known:
        hint = did_you_mean(architecture, known) or f" There are e.g. {', '.join(known[:8])}."
        raise ConfigError(f"architecture={architecture} is no {library} classifier.{hint}")


def _build(architecture: str, make: Callable[..., nn.Module], *args: Any, **options: Any) -> Any:
    """Call the library; its own complaints (sizes that do not fit) become ConfigError."""
    try:
        return make(*args, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"architecture={architecture} cannot be built: {_said(error)}."
        ) from error


def _download(architecture: str, make: Callable[..., nn.Module], *args: Any, **options: Any) -> Any:
    """Call the library, which may fetch weights; every failure becomes ConfigError.

    What it fetched is unpickled as tensors alone: in the file of a cache there could be any code.
    """
    try:
        with variable(WEIGHTS_ONLY, "1"):
            return make(*args, **options)
    except Exception as error:  # each library and each of its transports has errors of its own
        raise ConfigError(
            f"The pretrained weights of {architecture} cannot be had ({_said(error)}): connect to "
            "the network once, or set pretrained=false."
        ) from error


def _said(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return text or type(error).__name__


def _square(architecture: str, image_size: tuple[int, int]) -> int:
    height, width = image_size
    if height != width:
        raise ConfigError(f"{architecture} needs square images, these are {height}x{width} pixels.")
    return height


def _check_pretrained_size(architecture: str, options: dict[str, Any], weights: Any) -> None:
    """A vision transformer's position embedding fits one image size only."""
    size = options.get("image_size")
    expected = weights.meta["min_size"][0]
    if size is not None and size != expected:
        raise ConfigError(
            f"The pretrained weights of {architecture} are for {expected}x{expected} images, these "
            f"are {size}x{size}: set teacher.image_size={expected} (for a student: of the data), "
            "set pretrained=false, or choose another network."
        )


def _with_channels(network: nn.Module, in_channels: int) -> nn.Module:
    """The network with its first convolution converted to `in_channels`, weights included."""
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != in_channels:
                _set(network, path, _converted(module, in_channels))
            return network
    raise AssertionError("a classification network starts with a convolution")


def _converted(conv: nn.Conv2d, in_channels: int) -> nn.Conv2d:
    fresh = nn.utils.skip_init(
        nn.Conv2d,
        in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        bias=conv.bias is not None,
        device=conv.weight.device,
    )
    with torch.no_grad():
        fresh.weight.copy_(convert_weight(conv.weight, in_channels))
        if conv.bias is not None and fresh.bias is not None:
            fresh.bias.copy_(conv.bias)
    return fresh


def convert_weight(weight: Tensor, in_channels: int) -> Tensor:
    """`[out, C, h, w]` → `[out, in_channels, h, w]`: summed for one, else repeated and scaled."""
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    channels = weight.shape[1]
    repeated = weight.repeat(1, math.ceil(in_channels / channels), 1, 1)[:, :in_channels]
    return repeated * (channels / in_channels)


def _replace_classifier(network: nn.Module, old_classes: int, num_classes: int) -> None:
    """Give the last linear layer or 1x1 convolution that counts classes a new count."""
    for path, module in reversed(list(network.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == old_classes:
            _set(network, path, nn.Linear(module.in_features, num_classes))
            return
        if isinstance(module, nn.Conv2d) and module.out_channels == old_classes:
            _set(network, path, nn.Conv2d(module.in_channels, num_classes, 1))
            return
    raise AssertionError("a classification network ends with a classifier")


def _set(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def _constants(mean: Sequence[float], std: Sequence[float], in_channels: int) -> Normalisation:
    if in_channels == 1:
        return Normalisation((sum(mean) / len(mean),), (sum(std) / len(std),))
    indices = [i % len(mean) for i in range(in_channels)]
    return Normalisation(tuple(mean[i] for i in indices), tuple(std[i] for i in indices))


def _finish(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(getattr(module, "inplace", None), bool):
            setattr(module, "inplace", False)  # noqa: B010 - no common class declares it
    return network
