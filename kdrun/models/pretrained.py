"""Weights published by torchvision and timm: their outputs and class names, and without them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kdrun.config.schema import NetworkConfig
from kdrun.files import sha256_of
from kdrun.types import Normalisation
from kdrun.vision import import_torchvision

IMAGENET_CLASSES = 1000
TORCHVISION = "kdrun.models.external.torchvision_network"
TIMM = "kdrun.models.external.timm_network"
_WORDNET = re.compile(r"n\d{8}$")


def pretrained_outputs(config: NetworkConfig) -> int | None:
    """Number of outputs of a network's pretrained weights; None if unknown."""
    architecture = str(config.kwargs.get("architecture", ""))
    if not config.kwargs.get("pretrained"):
        return None
    try:
        if config.target == TORCHVISION:
            weights = import_torchvision().models.get_model_weights(architecture).DEFAULT
            return len(weights.meta["categories"])
        if config.target == TIMM:
            import_torchvision()  # timm imports it, and importing it may need a workaround
            import timm

            pretrained = timm.models.get_pretrained_cfg(architecture)
            return None if pretrained is None else int(pretrained.num_classes)
    except (ImportError, ValueError, RuntimeError, AttributeError, KeyError):
        pass  # building the network reports an unknown architecture
    return None


def untrained(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A network's arguments that build it without pretrained weights, which may be a download."""
    return {**kwargs, "pretrained": False} if "pretrained" in kwargs else dict(kwargs)


def published_constants(
    config: NetworkConfig, network: nn.Module, path: Path
) -> dict[str, Normalisation]:
    """Name of torchvision's weights → what they expect, if the file is one that it publishes.

    The names of these files hold the beginning of their SHA-256.
    """
    package, _, name = config.target.rpartition(".")
    name = str(config.kwargs.get("architecture", "")) if config.target == TORCHVISION else name
    if config.target != TORCHVISION and not package.startswith("torchvision.models"):
        return {}
    try:
        versions = list(import_torchvision().models.get_model_weights(name))
    except ValueError:
        return {}
    digest = sha256_of(path)
    for version in versions:
        published = re.search(r"-([0-9a-f]{8,})\.pth$", version.url)
        if published is not None and digest.startswith(published[1]):
            shown = version.transforms()
            mean, std = shown.mean, shown.std
            if getattr(network, "transform_input", None) is False:
                mean = std = (0.5, 0.5, 0.5)  # equals its transform_input after these
            return {f"torchvision's {version}": Normalisation(tuple(mean), tuple(std))}
    return {}


def imagenet_names(names: Sequence[object]) -> tuple[str, ...] | None:
    """The class names of ImageNet-1k in the usual order of outputs, in the style of `names`.

    WordNet identifiers (`n01440764`) if `names` contains any, which needs timm (None without it);
    else torchvision's names, in which "crane" and "maillot" occur twice.
    """
    if any(_WORDNET.match(str(name)) for name in names):
        try:
            import_torchvision()
            from timm.data.imagenet_info import ImageNetInfo
        except ImportError:
            return None
        return tuple(ImageNetInfo("imagenet-1k").label_names())
    models = import_torchvision().models
    return tuple(models.get_model_weights("resnet50").DEFAULT.meta["categories"])
