"""A teacher before its training: drawn from its seed, or from the weights of `teacher.start`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from kdrun.config.convert import to_plain
from kdrun.config.schema import TeacherConfig
from kdrun.data.constants import format_constants
from kdrun.data.dataset import Dataset
from kdrun.data.loaders.rendering import check_pixels
from kdrun.distillation.initial_weights import weights_sha256
from kdrun.distillation.loaded_teacher import load_teacher
from kdrun.distillation.networks import make_card, new_network, own_normalisation, seen_by
from kdrun.models.card import NetworkCard
from kdrun.teachers.constants import constants_of, known_constants, stated_constants
from kdrun.teachers.formats import read_any
from kdrun.weights.load import WeightsChoice


def teacher_network(
    config: TeacherConfig, dataset: Dataset, where: str
) -> tuple[nn.Module, NetworkCard, Sequence[str]]:
    """(network, card, notes): loaded from `teacher.checkpoint`, or as it is before its training.

    Raises what `load_teacher` and `new_teacher` raise.
    """
    if config.checkpoint is None:
        return new_teacher(config, dataset, where)
    loaded = load_teacher(config, dataset, where)
    return loaded.network, loaded.card, loaded.notes


def new_teacher(
    config: TeacherConfig, dataset: Dataset, where: str = "teacher"
) -> tuple[nn.Module, NetworkCard, list[str]]:
    """(network, card, notes on its initial weights) of a teacher to be trained.

    Its images are normalised with `teacher.mean` and `teacher.std`; without these as the card of
    the initial weights, the network's pretrained weights, or the data set says.
    where: its name in settings. Raises CheckpointError for incompatible weights, ConfigError for
    an augmentation that needs other images.
    """
    if config.augment is not None:
        check_pixels(config.augment, dataset.pixel_type, f"{where}.augment")
    size, notes = config.image_size, []
    network = new_network(config.network, dataset, config.seed, where, size)
    normalisation = own_normalisation(network, dataset.normalisation)
    if config.start is not None:
        loaded = read_any(Path(config.start), f"{where}.start")
        reading = config.reading
        choice = WeightsChoice(
            where, reading.key, reading.rename, config.new_classifier, starts_training=True
        )
        read = loaded.load_into(network, config.network, seen_by(dataset, size), choice)
        notes = [f"{where} starts from {config.start}" + "".join(f"; {note}" for note in read)]
        channels = len(normalisation.mean)
        if loaded.card is not None and len(loaded.card.normalisation.mean) == channels:
            normalisation = loaded.card.normalisation
        if loaded.card is None:
            stated = known_constants(loaded, config.network, network)
            what = f"{where}: {loaded.path}"
            expected = stated_constants(stated, config.input, channels, dataset.pixel_type, what)
            normalisation = expected.constants or normalisation
            notes += [f"{where}: {note}" for note in expected.notes]
            if expected.constants is not None:
                typed = format_constants(normalisation, where)
                notes.append(f"{where}: constants as the file states ({expected.source}): {typed}")
    normalisation = constants_of(
        config.input, normalisation, dataset.info.in_channels, dataset.pixel_type, where
    )
    card = make_card(config.network, network, dataset, {}, size)
    return network, replace(card, normalisation=normalisation), notes


def start_entry(config: TeacherConfig) -> dict[str, Any]:
    """The part of a teacher's recipe on its initial weights and constants; empty if unset."""
    entry: dict[str, Any] = {}
    if config.start is not None:
        reading = to_plain(config.reading)
        entry["start"] = {"sha256": weights_sha256(config.start, "teacher.start"), **reading}
        if config.new_classifier:
            entry["start"]["new_classifier"] = True
    if config.input.given():
        entry["input"] = to_plain(config.input)
    return entry
