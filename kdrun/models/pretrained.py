"""What is known of weights that a library publishes: their outputs and the names of these."""

import re
from collections.abc import Sequence

from kdrun.config.schema import NetworkConfig
from kdrun.vision import import_torchvision

IMAGENET_CLASSES = 1000
TORCHVISION = "kdrun.models.external.torchvision_network"
TIMM = "kdrun.models.external.timm_network"
_WORDNET = re.compile(r"n\d{8}$")


def pretrained_outputs(config: NetworkConfig) -> int | None:
    """How many outputs a network's pretrained weights have; None where nothing says it."""
    architecture = str(config.kwargs.get("architecture", ""))
    if not config.kwargs.get("pretrained"):
        return None
    try:
        if config.target == TORCHVISION:
            weights = import_torchvision().models.get_model_weights(architecture).DEFAULT
            return len(weights.meta["categories"])
        if config.target == TIMM:
            import_torchvision()  # timm imports it, and it may need help
            import timm

            found = timm.models.get_pretrained_cfg(architecture)
            return None if found is None else int(found.num_classes)
    except (ImportError, ValueError, RuntimeError, AttributeError, KeyError):
        pass  # an unknown architecture is refused where it is built
    return None


def imagenet_names(asked: Sequence[object]) -> tuple[str, ...] | None:
    """The names of ImageNet-1k's classes in the usual order of outputs.

    WordNet identifiers (`n01440764`) where `asked` holds such, which needs timm (None without it);
    else torchvision's names, of which "crane" and "maillot" stand twice.
    """
    if any(_WORDNET.match(str(name)) for name in asked):
        try:
            import_torchvision()
            from timm.data import ImageNetInfo
        except ImportError:
            return None
        return tuple(ImageNetInfo("imagenet-1k").label_names())
    models = import_torchvision().models
    return tuple(models.get_model_weights("resnet50").DEFAULT.meta["categories"])
