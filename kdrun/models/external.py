"""Networks of torchvision and timm, adapted to the data's classes and channels.

If the number of channels differs from that of the pretrained weights, the first convolution sums
its weights (one channel) or repeats them cyclically and scales by 3 / channels (other numbers),
which preserves the scale of its output. `network.normalisation` holds the constants that pretrained
weights expect: averaged for one channel, repeated for other numbers.

In-place activations are disabled, so that every module can be tapped.
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

# Their auxiliary classifier, used only by the original recipe, turns the output into a tuple.
WITH_AUXILIARY = ("googlenet", "inception_v3")
# PyTorch's variable that overrides the argument of torch.load.
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
    pretrained: start from torchvision's default weights, downloaded once; the classifier is new
    unless the number of classes matches.
    Raises ConfigError for unknown names, unsupported sizes, and failed downloads.
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
    if architecture in WITH_AUXILIARY:
        _make_plain(network)
    return _finish(_with_channels(network, in_channels))


def _make_plain(network: nn.Module) -> None:
    """Without auxiliary classifiers and `transform_input`, as the network is built again.

    That option turns images normalised with ImageNet's constants into ones with mean and standard
    deviation 0.5.
    """
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(network, name):
            setattr(network, name, None)
    network.aux_logits = network.transform_input = False  # type: ignore[assignment]
    half = (0.5,) * len(network.normalisation.mean)  # type: ignore[arg-type]
    network.normalisation = Normalisation(half, half)  # type: ignore[assignment]


def timm_network(
    architecture: str,
    num_classes: int,
    in_channels: int,
    image_size: tuple[int, int],
    pretrained: bool = False,
) -> nn.Module:
    """A network of timm, images `[B, in_channels, H, W]` → logits `[B, num_classes]`.

    architecture: its name in timm, e.g. resnet18 or vit_tiny_patch16_224.
    pretrained: start from timm's default weights, downloaded once; the classifier is new unless the
    number of classes matches.
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
    import_torchvision()  # timm imports it, and importing it may need a workaround
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingExtraError("timm", "timm", "A timm network") from None


def _check_name(architecture: str, known: Sequence[str], library: str) -> None:
    if architecture not in known:
        hint = did_you_mean(architecture, known) or f" Examples: {', '.join(known[:8])}."
        raise ConfigError(f"architecture={architecture} is not a {library} classifier.{hint}")


def _build(architecture: str, make: Callable[..., nn.Module], *args: Any, **options: Any) -> Any:
    """Call the library and turn its errors (unsupported sizes) into ConfigError."""
    try:
        return make(*args, **options)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"architecture={architecture} cannot be built: {_reason(error)}."
        ) from error


def _download(architecture: str, make: Callable[..., nn.Module], *args: Any, **options: Any) -> Any:
    """Call the library, which may download weights, and turn every failure into ConfigError.

    Unpickles only tensors, because a file in a cache could contain arbitrary code.
    """
    try:
        with variable(WEIGHTS_ONLY, "1"):
            return make(*args, **options)
    except Exception as error:  # libraries and transports raise many types
        raise ConfigError(
            f"The pretrained weights of {architecture} cannot be downloaded ({_reason(error)}): "
            "connect to the network once, or set pretrained=false."
        ) from error


def _reason(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return text or type(error).__name__


def _square(architecture: str, image_size: tuple[int, int]) -> int:
    height, width = image_size
    if height != width:
        raise ConfigError(
            f"{architecture} needs square images, but these are {height}x{width} pixels."
        )
    return height


def _check_pretrained_size(architecture: str, options: dict[str, Any], weights: Any) -> None:
    """Raise ConfigError for another image size than that of the position embedding."""
    size = options.get("image_size")
    expected = weights.meta["min_size"][0]
    if size is not None and size != expected:
        raise ConfigError(
            f"The pretrained weights of {architecture} are for {expected}x{expected} images, these "
            f"are {size}x{size}: set teacher.image_size={expected} (for a student: of the data), "
            "set pretrained=false, or choose another network."
        )


def _with_channels(network: nn.Module, in_channels: int) -> nn.Module:
    """Convert the first convolution and its weights to `in_channels`."""
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
    """Replace the last linear layer or 1x1 convolution that has one output per class."""
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
