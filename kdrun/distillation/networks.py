"""Build seeded networks, describe them by cards, and adapt them to the images of a loader."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kdrun.config.schema import NetworkConfig
from kdrun.data.dataset import Dataset
from kdrun.errors import ConfigError
from kdrun.losses.base import NetworkView
from kdrun.models.build import build_network, sample_images
from kdrun.models.card import NetworkCard
from kdrun.models.features.taps import TapPaths, tap_paths
from kdrun.models.measure import count_flops, count_parameters
from kdrun.models.normalise import Renormalise
from kdrun.models.resize import Resize
from kdrun.models.saved_state import require_complete_state
from kdrun.models.select import SelectOutputs
from kdrun.own_code import code_digests
from kdrun.seeds import derive
from kdrun.types import InputInfo, Normalisation


class Labelled(Protocol):
    """Images with labels."""

    @property
    def targets(self) -> Tensor:
        """`[N]` int64 class numbers."""


class TrainingData(Protocol):
    """The data set properties that networks and losses read; `Dataset` implements it."""

    @property
    def info(self) -> InputInfo:
        """Shape of the images and number of classes."""

    @property
    def normalisation(self) -> Normalisation:
        """Normalisation of the images."""

    @property
    def train(self) -> Labelled:
        """The training images."""


def new_network(
    config: NetworkConfig,
    dataset: Dataset,
    seed: int,
    where: str,
    image_size: tuple[int, int] | None = None,
) -> nn.Module:
    """A network initialised from `seed`, for images resized to `image_size`.

    Raises ConfigError for a network without trainable parameters, and for one of the user's own
    that computes something else once it is saved and loaded.
    """
    info = seen_by(dataset, image_size)
    torch.manual_seed(derive(seed, "weights"))
    network = build_network(config, info, where)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"The {where} {config.name} has no trainable parameters.")
    if code_digests(asdict(config)):
        require_complete_state(network, config, info, where)
    return network


def seen_by(
    dataset: TrainingData, image_size: tuple[int, int] | None, channels: int | None = None
) -> InputInfo:
    """Size, channels and classes of a data set's images, as a network receives them.

    None leaves either unchanged.
    """
    info = dataset.info
    return replace(
        info, image_size=image_size or info.image_size, in_channels=channels or info.in_channels
    )


def own_normalisation(network: nn.Module, default: Normalisation) -> Normalisation:
    """The normalisation that pretrained weights expect; `default` for other networks."""
    own = getattr(network, "normalisation", None)
    return own if isinstance(own, Normalisation) else default


def make_card(
    config: NetworkConfig,
    network: nn.Module,
    dataset: Dataset,
    extra: dict[str, Any],
    image_size: tuple[int, int] | None = None,
    info: InputInfo | None = None,
) -> NetworkCard:
    """The card of a network trained on a data set, its images resized to `image_size`.

    info: of its input, where more than the size differs; None: the data set's images.
    """
    info = info or seen_by(dataset, image_size)
    return NetworkCard(
        name=config.name,
        target=config.target,
        kwargs=config.kwargs,
        taps=config.taps,
        classes=dataset.classes,
        info=info,
        normalisation=own_normalisation(network, dataset.normalisation),
        params=count_parameters(network),
        flops=count_flops(network, sample_images(network, info, 1)),
        resize=image_size is not None,
        quantize=config.quantize,
        code=code_digests(asdict(config)),
        extra=extra,
    )


@dataclass(frozen=True)
class Member:
    """A network and the preprocessing of its images.

    image_size: images are resized to it; None: not resized.
    outputs: which of its outputs are the classes, in class order; None: all.
    example: a batch it can take; None: black images of the data's shape.
    """

    network: nn.Module
    config: NetworkConfig
    normalisation: Normalisation
    image_size: tuple[int, int] | None = None
    outputs: tuple[int, ...] | None = None
    example: Tensor | None = None

    def info(self, dataset: TrainingData) -> InputInfo:
        """Size, channels and classes of the images it receives."""
        return seen_by(dataset, self.image_size, len(self.normalisation.mean))

    def sample(self, dataset: TrainingData) -> Tensor:
        """Two images of the data set's shape, or the example."""
        if self.example is not None:
            return self.example
        return sample_images(self.network, dataset.info)

    def paths(self, dataset: TrainingData) -> TapPaths:
        """Resolve its taps for a data set's images."""
        sample = self.example
        if sample is None:
            sample = sample_images(self.network, self.info(dataset))
        return tap_paths(self.network, sample, self.config.taps)

    def view(self, dataset: TrainingData, paths: TapPaths | None = None) -> NetworkView:
        """The network for losses that need one of its modules."""
        paths = self.paths(dataset) if paths is None else paths
        return NetworkView(self.network, paths, self.outputs, self.info(dataset))


def teacher_member(network: nn.Module, config: NetworkConfig, card: NetworkCard) -> Member:
    """A teacher, with the preprocessing from its card."""
    return Member(network, config, card.normalisation, card.resized, card.outputs)


def renormalised(
    network: nn.Module,
    source: Normalisation,
    own: Normalisation,
    image_size: tuple[int, int] | None = None,
    outputs: Sequence[int] | None = None,
) -> nn.Module:
    """The network with preprocessing for the loader's images and a selection of its outputs.

    Before it: a conversion of normalisation and channels, if they differ, and a resize to
    `image_size`, if given. After it: a selection of `outputs`, if given.
    """
    before: list[nn.Module] = [] if source == own else [Renormalise(source, own)]
    before += [] if image_size is None else [Resize(image_size)]
    after: list[nn.Module] = [] if outputs is None else [SelectOutputs(outputs)]
    return nn.Sequential(*before, network, *after) if before or after else network


def card_to_dict(card: NetworkCard) -> dict[str, Any]:
    """Name and size of a network in `result.json`."""
    return {"name": card.name, "params": card.params, "flops": card.flops}


def dataset_to_dict(dataset: Dataset) -> dict[str, Any]:
    """`dataset` in `result.json`."""
    return {
        "name": dataset.name,
        "num_classes": len(dataset.classes),
        "train_size": len(dataset.train),
        "val_size": len(dataset.val) if dataset.val is not None else 0,
        "test_size": len(dataset.test),
        "fingerprint": dataset.fingerprint,
    }
