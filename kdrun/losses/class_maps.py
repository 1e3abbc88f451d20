"""Class scores at each place of the map that a network averages before its linear classifier."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.context import NetworkView
from kdrun.models.reused_classifier import inspect_network
from kdrun.types import InputInfo


def pooled_map_tap(setting: str, who: str, view: NetworkView, info: InputInfo) -> str:
    """The module whose map `[B, D, H, W]` averages to the embedding.

    setting: `loss=ID` or `loss.ID.KEY`; who: `student` or `teacher`; both for errors.
    Raises ConfigError for a network that averages no map before its classifier.
    """
    inspected = inspect_network(view.network, view.paths["embedding"], view.info or info)
    if not inspected.has_places:
        raise ConfigError(
            f"{setting} needs a {who} that averages a feature map of more than 1×1 pixels before "
            f"its linear classifier; {type(view.network).__name__} does not for these images. Use "
            f"larger images, another convolutional {who}, or a loss on the logits or the embedding "
            "(kd, dist, pkt)."
        )
    return inspected.path


def class_maps(classifier: nn.Linear | nn.Conv2d, features: Tensor, bias: bool = False) -> Tensor:
    """Scores `[B, C, H, W]` of a map `[B, D, H, W]`, without the bias of the classifier by default.

    The classifier keeps its gradient.
    """
    weight = classifier.weight.flatten(1)[:, :, None, None].to(features.dtype)
    offset = classifier.bias.to(features.dtype) if bias and classifier.bias is not None else None
    return F.conv2d(features, weight, offset)
