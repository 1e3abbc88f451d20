"""Building blocks of the convolutional networks."""

from collections.abc import Sequence

from torch import Tensor, nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution with padding 1 and no bias."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, groups=groups, bias=False)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch for a random share of the images.

    Kept branches are scaled by 1 / (1 - rate). Source: Huang et al. (arXiv 1603.09382).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = 1.0 - self.rate
        shape = (branch.shape[0],) + (1,) * (branch.dim() - 1)
        return branch * branch.new_empty(shape).bernoulli_(keep).div_(keep)


def drop_path_rates(last: float, blocks: int) -> list[float]:
    """The rate of each block: rises linearly from 0 to `last` (Huang et al., section 3)."""
    return [last * number / max(blocks - 1, 1) for number in range(blocks)]


class ChannelShuffle(nn.Module):
    """Interleave the channels of `groups` groups; keeps the shape `[B, C, H, W]`.

    Source: Zhang et al., ShuffleNet (arXiv 1707.01083), section 3.1.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, images: Tensor) -> Tensor:
        return images.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


def initialise_fan_out(network: nn.Module) -> None:
    """Convolutions from N(0, 2 / fan-out), biases 0, batch normalisation to the identity.

    Source: He et al., Delving Deep into Rectifiers (arXiv 1502.01852), section 2.2, backward case.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def initialise_classifier(classifier: nn.Linear, std: float = 0.01) -> None:
    """Classifier weights from N(0, std²), bias 0: all classes start about equally likely."""
    nn.init.normal_(classifier.weight, 0.0, std)
    nn.init.zeros_(classifier.bias)


def stage_taps(
    stages: Sequence[str], pre: Sequence[str], classifier: str, stem: str | None = None
) -> dict[str, str]:
    """The standard tap names of a network (see `features.taps`) from its module paths.

    stages: module paths of the stage outputs, in order. pre: the same before the activation.
    """
    taps = {} if stem is None else {"stem": stem}
    taps |= {f"stage{i}": path for i, path in enumerate(stages, 1)}
    taps |= {f"stage{i}_pre": path for i, path in enumerate(pre, 1)}
    return taps | {"embedding": f"{classifier}:in"}
