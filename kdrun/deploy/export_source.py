"""What `kdrun export` starts from: a finished network, and the data its file is checked on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from kdrun.config.dump import dataset_plain
from kdrun.config.schema import DatasetConfig, ExportConfig, TeacherConfig
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.data.loaders.fitted import fitted
from kdrun.deploy.interrupted import is_interrupted, load_interrupted
from kdrun.deploy.student import LoadedNetwork, rebuild
from kdrun.distillation.loaded_teacher import load_teacher
from kdrun.distillation.networks import dataset_to_dict, renormalised
from kdrun.distillation.session import Session, eval_loader, open_data
from kdrun.distillation.student import STEM
from kdrun.distillation.teacher_check import evenly, reading_warnings
from kdrun.engine.finite import refusing
from kdrun.engine.metrics import collect_logits, evaluation
from kdrun.errors import ConfigError
from kdrun.evaluation.finished import differences, open_as_trained
from kdrun.models.card import INTERRUPTED_AT, NetworkCard
from kdrun.runs.reading import read_run, require_intact
from kdrun.runs.result import DatasetResult, RunResult
from kdrun.teachers.formats import LoadedWeights, averaged_stem, chosen_weights, read_any
from kdrun.types import InputInfo


@dataclass(frozen=True)
class Source:
    """What is exported: the network, its files, and the data it is checked on.

    test: the test images of the check, as the network takes them. original: the network's logits
    of them `[N, C]`, by the way `kdrun evaluate` takes. is_bare: the weights had no card.
    is_own_data: no other data set was asked for.
    epoch: of an interrupted run: which one the weights are of, as text.
    """

    network: LoadedNetwork
    weights: Path
    dataset: Dataset
    test: Split
    original: Tensor
    is_bare: bool = False
    is_own_data: bool = True
    epoch: str = ""

    @property
    def folder(self) -> Path:
        """The run folder, or the folder of the weights."""
        return self.weights.parent.parent if self.epoch else self.weights.parent

    @property
    def stem(self) -> str:
        """Name of exported files, without ending: `student`, or `student-epoch12`."""
        at = self.card.extra.get(INTERRUPTED_AT)
        if not self.epoch or at is None:
            return self.weights.stem
        name = averaged_stem(STEM) if at["weights"] == "ema" else STEM
        return f"{name}-epoch{at['epoch']}" + (f"-batch{at['batch']}" if at["batch"] else "")

    @property
    def card(self) -> NetworkCard:
        """The network's card."""
        return self.network.card

    @property
    def result(self) -> RunResult | None:
        """`result.json` of its run; None for a teacher or a file alone."""
        result = read_run(self.folder).result
        return result if result.complete else None

    @property
    def training_data(self) -> DatasetResult:
        """The data that the network was trained on, as far as it is known."""
        if self.result is not None:
            return self.result.dataset
        if self.is_own_data:
            return DatasetResult.from_dict(dataset_to_dict(self.dataset))
        name = self.card.extra.get("dataset", {}).get("name")
        return DatasetResult(name=name, fingerprint=self.card.data_fingerprint)


def open_source(config: ExportConfig, session: Session) -> Source:
    """The network of `config.run` with its data opened, answered for the test images.

    Raises CheckpointError, ConfigError or DataError for what is missing or does not fit.
    """
    run = Path(config.run).expanduser()
    if config.bare is None and is_interrupted(run):
        network, checkpoint, epoch = load_interrupted(run, config.weights, session)
        session.reporter.say(f"  {config.run} is not finished: exporting {epoch}")
        data, dataset = open_as_trained(network.card, config.dataset, config.run, session)
        source = _answered(network, checkpoint, dataset, data, config, session)
        return replace(source, epoch=epoch)
    loaded = read_any(chosen_weights(config.run, config.weights), what="run")
    if config.bare is not None:
        return _bare(config, config.bare, loaded, session)
    require_intact(loaded.path.parent)  # the model card tells its result
    network = rebuild(loaded, config.run)
    card = network.card
    if card.edited:
        session.reporter.warn(card.edited)
    data, dataset = open_as_trained(card, config.dataset, config.run, session)
    if card.resized is None and dataset.info.image_size != card.info.image_size:
        raise ConfigError(
            f"{card.name} was trained on images of {_size(card.info.image_size)} and "
            f"{dataset.name} has {_size(dataset.info.image_size)}: choose data of its own size."
        )
    for note in differences(card, dataset):
        session.reporter.warn(note)
    return _answered(network, loaded.path, dataset, data, config, session)


def _bare(
    config: ExportConfig, weights: TeacherConfig, loaded: LoadedWeights, session: Session
) -> Source:
    """Weights without a card, which get one: classes, constants, size and measured accuracy."""
    if loaded.card is not None:
        raise ConfigError(
            f"{config.run} has a card that says which network it is and how it is read: leave "
            "teacher=... and teacher.* out."
        )
    data = config.dataset
    assert data is not None
    dataset = open_data(session, data, 0.0)
    teacher = load_teacher(weights, dataset)
    for note in teacher.notes:
        session.reporter.say(f"  {note}")
    extra = {
        "dataset": dataset_plain(data),
        "fingerprint": dataset.fingerprint,
        "val_fraction": 0.0,
        "pixel_type": dataset.pixel_type,
        "origin": {"file": loaded.path.name, "sha256": teacher.card.sha256},
    }
    card = replace(teacher.card, extra=extra)
    network = LoadedNetwork(teacher.network, card)
    source = _answered(network, loaded.path, dataset, data, config, session)
    for warning in reading_warnings(source.original, source.test.targets, weights, dataset):
        session.reporter.warn(warning)
    if len(source.test) < len(dataset.test):
        return source
    measured = evaluation(source.original, source.test.targets, source.test.extra_metrics).to_dict()
    network.card = replace(card, extra={**extra, **measured})
    return source


def _answered(
    network: LoadedNetwork,
    path: Path,
    dataset: Dataset,
    data: DatasetConfig,
    config: ExportConfig,
    session: Session,
) -> Source:
    """The network and its logits for the test images, converted to its channels and size."""
    card = network.card
    test = fitted(evenly(dataset.test, config.images), card.info)
    same = card.normalisation
    batches = eval_loader(session, test, same, data, config.batch_size)
    model = renormalised(network.network, same, same, outputs=card.outputs)
    remedy = "Choose another run: kdrun ls runs."
    with refusing(f"The network of {config.run}", network.network, "test", remedy):
        original, _ = collect_logits(model, batches, torch.device("cpu"), "fp32")
    is_bare = card.extra.get("origin") is not None
    is_own_data = config.dataset is None or config.bare is not None
    return Source(network, path, dataset, test, original, is_bare, is_own_data)


def _size(size: tuple[int, int]) -> str:
    """Width × height, from (height, width)."""
    return f"{size[1]}×{size[0]}"


def raw_batches(split: Split, batch_size: int) -> Iterator[Tensor]:
    """All images of a split as they are stored, `[B, C, H, W]`."""
    for index in torch.arange(len(split)).split(batch_size):
        yield split.gather(index)


def calibration_split(dataset: Dataset, count: int, info: InputInfo) -> Split:
    """Images to fit int8 ranges to: of the validation split, or of the training split."""
    return fitted(evenly(dataset.val if dataset.val is not None else dataset.train, count), info)
