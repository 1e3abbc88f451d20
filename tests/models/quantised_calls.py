"""Networks whose authors call layers and activations in other ways than modules in a row."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, CLASSES = 8, 3


class _Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.b = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.fc = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images).mean((2, 3)))

    def features(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class NormAfterLinear(nn.Module):
    """A batch normalisation that is neither folded nor quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(36, 16), nn.BatchNorm1d(16), nn.ReLU(),
            nn.Linear(16, 16, bias=False), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, CLASSES),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


class WeightedSum(_Base):
    """Sums with `alpha`."""

    def features(self, images: Tensor) -> Tensor:
        first = self.a(images).relu()
        second = torch.add(first, self.b(first), alpha=0.25)
        return self.b(second).add_(first, alpha=-0.5).relu()


class InPlace(_Base):
    """In-place activations whose results are not assigned, by keyword and by position."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.SiLU(inplace=True)
        self.leaky = nn.LeakyReLU(0.3, inplace=True)

    def features(self, images: Tensor) -> Tensor:
        values = self.a(images)
        self.act(values)
        values = self.b(values)
        F.hardswish(values, True)
        before = self.b(values)
        self.leaky(before)
        return before + values


class Tied(_Base):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.c.weight = self.b.weight

    def features(self, images: Tensor) -> Tensor:
        return self.c(self.b(self.a(images).relu()).relu()).relu()


class WeightUsedTwice(_Base):
    """A layer with batch normalisation whose weight is used once more without it."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(CHANNELS)

    def features(self, images: Tensor) -> Tensor:
        first = self.bn(self.b(self.a(images).relu())).relu()
        return first + F.conv2d(first, self.b.weight, None, 1, 1).relu()


class Keywords(_Base):
    """Layers that are called with keywords."""

    def features(self, images: Tensor) -> Tensor:
        values = F.conv2d(input=images, weight=self.a.weight, bias=self.a.bias, padding=1).relu()
        values = self.b(values).relu()
        return F.conv2d(values, self.b.weight, self.b.bias, padding=1).relu()


class Children(_Base):
    """Runs its children in order."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.a = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(CHANNELS, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        for child in self.children():
            images = child(images)
        return images


def sequential() -> nn.Module:
    """A network that is a Sequential itself."""
    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, padding=1), nn.BatchNorm2d(CHANNELS), nn.LeakyReLU(0.1, True),
        nn.Flatten(), nn.Linear(36 * CHANNELS, 16), nn.BatchNorm1d(16), nn.ReLU(),
        nn.Linear(16, CLASSES),
    )  # fmt: skip


class FloatReader(_Base):
    """The weight of a layer is also read by an operation that stays in floating point."""

    def features(self, images: Tensor) -> Tensor:
        values = self.b(self.a(images).relu()).relu()
        return values * self.b.weight.abs().mean()
