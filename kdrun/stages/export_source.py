"""What `kdrun export` starts from: a finished network, and the data its file is checked on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdrun.config.schema import ExportConfig
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.deploy.student import LoadedNetwork, rebuild
from kdrun.engine.finite import refusing
from kdrun.engine.metrics import collect_logits
from kdrun.errors import ConfigError
from kdrun.models.card import NetworkCard
from kdrun.runs.reading import read_result, require_intact
from kdrun.runs.shape import is_whole
from kdrun.stages.finished import check_classes, data_of
from kdrun.stages.session import Session, eval_loader, open_data
from kdrun.stages.teacher_check import evenly
from kdrun.teachers.formats import read_any


@dataclass(frozen=True)
class Source:
    """What is exported: the network, its files, and the data it is checked on.

    test: the test images of the check. original: the network's logits of them `[N, C]`, by the
    way `kdrun evaluate` takes.
    """

    network: LoadedNetwork
    weights: Path
    dataset: Dataset
    test: Split
    original: Tensor

    @property
    def card(self) -> NetworkCard:
        """The network's card."""
        return self.network.card

    @property
    def result(self) -> dict[str, Any] | None:
        """`result.json` of its run; None for a teacher or a file alone."""
        result = read_result(self.weights.parent)
        return result if result is not None and is_whole(result) else None


def open_source(config: ExportConfig, session: Session) -> Source:
    """The network of `config.run` with its data opened, answered for the test images.

    Raises CheckpointError, ConfigError or DataError for what is missing or does not fit.
    """
    loaded = read_any(Path(config.run), what="run")
    require_intact(loaded.path.parent)  # the model card tells its result
    network = rebuild(loaded, config.run)
    card = network.card
    data, val_fraction = data_of(card, config.dataset, config.run)
    dataset = open_data(session, data, val_fraction)
    check_classes(card, dataset)
    if dataset.info.image_size != card.info.image_size:
        raise ConfigError(
            f"{card.name} was trained on images of {_size(card.info.image_size)} and "
            f"{dataset.name} has {_size(dataset.info.image_size)}: choose data of its own size."
        )
    test = evenly(dataset.test, config.images)
    batches = eval_loader(session, test, card.normalisation, data, config.batch_size)
    remedy = "Choose another run: kdrun ls runs."
    with refusing(f"The network of {config.run}", network.network, "test", remedy):
        original, _ = collect_logits(network.network, batches, torch.device("cpu"), "fp32")
    return Source(network, loaded.path, dataset, test, original)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def raw_batches(split: Split, batch_size: int) -> Iterator[Tensor]:
    """All images of a split as they are stored, `[B, C, H, W]`."""
    for index in torch.arange(len(split)).split(batch_size):
        yield split.gather(index)


def calibration_split(dataset: Dataset, count: int) -> Split:
    """Images to fit int8 ranges to: of the validation split, or of the training split."""
    return evenly(dataset.val if dataset.val is not None else dataset.train, count)
