"""Checks of a finished network against a data set, for `evaluate` and `export`."""

from dataclasses import replace
from inspect import signature
from typing import Any

from kdrun.config import build, parse, places, trust
from kdrun.config.schema import DatasetConfig
from kdrun.data.class_order import class_orders
from kdrun.data.dataset import Dataset
from kdrun.data.decoding.rules import PixelRules
from kdrun.distillation.session import Session, open_data
from kdrun.errors import ConfigError
from kdrun.models.card import NetworkCard
from kdrun.models.normalise import can_convert
from kdrun.runs.config import parsed
from kdrun.teachers.accuracy import drawn_test_notes


def data_of(
    card: NetworkCard, asked: DatasetConfig | None, run: str
) -> tuple[DatasetConfig, float]:
    """The requested data set, or the network's training data set with its `val_fraction`."""
    if asked is not None:
        return asked, 0.0
    kept = card.extra.get("dataset")
    if not isinstance(kept, dict):
        raise ConfigError(f"The card of {run} names no data set: add dataset=...")
    source = f"The card of {run}"
    trust.require(kept, source)
    config = parsed(parse.dataset_config, kept, source)
    places.read_only(config)
    fraction = parsed(float, card.extra.get("val_fraction", 0.0), source)
    if not 0 <= fraction < 1:
        raise ConfigError(f"{source} has val_fraction={fraction}, which is no share.")
    return config, fraction


def open_as_trained(
    card: NetworkCard, asked: DatasetConfig | None, run: str, session: Session
) -> tuple[DatasetConfig, Dataset]:
    """The data of `data_of`, its image files read with the size and pixel rules of the training.

    Settings of the user's come first. Raises ConfigError for other classes or channels.
    """
    config, val_fraction = data_of(card, asked, run)
    dataset = open_data(session, config, val_fraction)
    own = _reading_of_training(card, config, dataset)
    if own:
        words = " ".join(f"dataset.{name}={value}" for name, value in own.items())
        session.reporter.say(f"  images are read as in the training of {card.name}: {words}")
        config = replace(config, kwargs={**config.kwargs, **own})
        dataset = open_data(session, config, val_fraction)
    check_classes(card, dataset)
    return config, dataset


def _reading_of_training(
    card: NetworkCard, config: DatasetConfig, dataset: Dataset
) -> dict[str, Any]:
    """Settings of the data set, by name, that another automatic choice than the training's needs.

    What an image folder chooses (size, range of deep pixels) follows from all of its images.
    """
    if dataset.rules is None:
        return {}
    found: dict[str, Any] = {}
    rules = PixelRules.of_card(card.extra)
    ranges = {rule for rule in (rules.whole, rules.real) if rule is not None}
    if card.resized is None and card.info.image_size != dataset.info.image_size:
        found["image_size"] = list(card.info.image_size)
    if rules.background != dataset.rules.background:
        found["background"] = list(rules.background)
    if (rules.whole, rules.real) != (dataset.rules.whole, dataset.rules.real) and len(ranges) == 1:
        found["value_range"] = list(ranges.pop())
    taken = signature(build.locate(config.target, "dataset")).parameters
    unset = (None, "auto", "white")
    return {
        name: value
        for name, value in found.items()
        if name in taken and config.kwargs.get(name) in unset
    }


def check_classes(card: NetworkCard, dataset: Dataset) -> None:
    """Raise ConfigError unless the network has the data's number of classes and channels.

    Grey/colour conversion only applies to a teacher whose card was built on this data set.
    """
    if len(card.classes) != len(dataset.classes):
        raise ConfigError(
            f"{card.name} knows {len(card.classes)} classes and {dataset.name} has "
            f"{len(dataset.classes)}: choose data with the classes it was trained on."
        )
    _check_order(card, dataset)
    own_data = card.data_fingerprint == dataset.fingerprint
    if own_data and can_convert(dataset.info.in_channels, card.info.in_channels):
        return
    if card.info.in_channels != dataset.info.in_channels:
        raise ConfigError(
            f"{card.name} takes images of {card.info.in_channels} channels and {dataset.name} has "
            f"{dataset.info.in_channels}."
        )


def differences(card: NetworkCard, dataset: Dataset) -> list[str]:
    """What makes the accuracy on `dataset` another one than where the network was trained."""
    found = [f"{note}." for note in drawn_test_notes(card, dataset)]
    own, given = card.info.image_size, dataset.info.image_size
    if card.resized is None and own != given:
        size = own[0] if own[0] == own[1] else f"[{own[0]},{own[1]}]"
        found.append(
            f"{card.name} was trained on images of {own[1]}×{own[0]} pixels and {dataset.name} has "
            f"{given[1]}×{given[0]}: dataset.image_size={size} scales image files."
        )
    return found


def _check_order(card: NetworkCard, dataset: Dataset) -> None:
    """Raise ConfigError if the network uses a different class order."""
    if card.classes == dataset.classes or sorted(card.classes) != sorted(dataset.classes):
        return
    orders = class_orders(card.classes)
    same = [name for name, order in orders.items() if order == tuple(card.classes)]
    remedy = same[0] if same else "[the names in its order]"
    at = next(n for n, name in enumerate(card.classes) if name != dataset.classes[n])
    raise ConfigError(
        f"{card.name} was trained with the classes in another order (class {at} is "
        f"{card.classes[at]}, in {dataset.name} it is {dataset.classes[at]}): set "
        f"dataset.class_order={remedy}."
    )
