"""The `transfer` node: which images and labels stage 2 sees; read, checked and written here."""

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

from kdrun.config.scalars import boolean, integer, number
from kdrun.errors import ConfigError, did_you_mean
from kdrun.ranges import Number, Range, Seed, check_settings

BIASES = ("none", "match")
WHERE = "transfer"

# A class by number or name.
ClassKey = int | str


@dataclass(frozen=True)
class TransferConfig:
    """What the student is trained on, where that is not the training images with their labels.

    exclude_classes, only_classes: numbers (from 0) or names of classes to leave out, or to keep.
    fraction: share of each class that is kept, drawn by `seed`.
    labels: False takes the labels away: soft targets alone.
    folder: pictures without labels, instead of the training images.
    bias: none | match | a number, what is added to the logits of the left-out classes afterwards.
    """

    exclude_classes: tuple[ClassKey, ...] = ()
    only_classes: tuple[ClassKey, ...] = ()
    fraction: Annotated[float, Range(above=0, high=1, usual="0.03")] = 1.0
    seed: Seed = 0
    labels: bool = True
    folder: str | None = None
    bias: str | Number = "none"

    @property
    def labelled(self) -> bool:
        """Whether the transfer set has labels."""
        return self.labels and self.folder is None

    @property
    def by_class(self) -> bool:
        """Whether some classes are left out."""
        return bool(self.exclude_classes or self.only_classes)


ALL_TRAINING_IMAGES = TransferConfig()


def transfer_config(node: dict[str, Any] | None) -> TransferConfig:
    """The typed form of the node; raises ConfigError for unknown keys and wrong types."""
    node = dict(node or {})
    names = [field.name for field in fields(TransferConfig)]
    for key in node:
        if key not in names:
            raise ConfigError(f"{WHERE}.{key} does not exist.{did_you_mean(key, names)}")
    named = {f"{WHERE}.{key}": value for key, value in node.items()}
    values: dict[str, Any] = {key: _READ[key](named, f"{WHERE}.{key}") for key in node}
    return TransferConfig(**values)


def transfer_plain(config: TransferConfig) -> dict[str, Any]:
    """Plain containers for `transfer_config`."""
    lists = {"exclude_classes": list(config.exclude_classes)}
    lists["only_classes"] = list(config.only_classes)
    return asdict(config) | lists


def validate_transfer(config: TransferConfig, optimizer: str) -> None:
    """Raise ConfigError for settings that cannot be, or of which one would not be used."""
    check_settings(config, lambda key: f"{WHERE}.{key}")
    if config.seed != 0 and config.fraction == 1:
        raise ConfigError(
            f"transfer.seed={config.seed} chooses the share transfer.fraction, which is all: set "
            "transfer.fraction=0.1, or leave the seed out."
        )
    if config.exclude_classes and config.only_classes:
        raise ConfigError(
            "transfer.exclude_classes and transfer.only_classes say the same thing in two ways: "
            "give only one of them."
        )
    if config.folder is not None and config.by_class:
        raise ConfigError(
            "The pictures of transfer.folder have no labels, so no class of them can be left out: "
            "drop transfer.exclude_classes and transfer.only_classes."
        )
    if config.bias != "none" and not config.by_class:
        raise ConfigError(
            f"transfer.bias={config.bias} corrects the classes that are left out, and none is: add "
            "transfer.exclude_classes=[...] or transfer.only_classes=[...]."
        )
    if not config.labelled and optimizer == "dot":
        raise ConfigError(
            "schedule.optimizer=dot keeps the gradients of labels and teachers apart, and this "
            "transfer set has no labels: choose another optimizer, e.g. sgd."
        )


def _classes(plain: dict[str, Any], where: str) -> tuple[ClassKey, ...]:
    value = plain[where]
    listed = value if isinstance(value, list | tuple) else [] if value is None else [value]
    for item in listed:
        if isinstance(item, bool) or not isinstance(item, int | str):
            raise ConfigError(f"{where}: {item!r} is neither a class number nor a name, e.g. [3].")
    return tuple(listed)


def _path(plain: dict[str, Any], where: str) -> str | None:
    return None if plain[where] is None else str(plain[where])


def _bias(plain: dict[str, Any], where: str) -> str | float:
    value = plain[where]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if value is None:
        return "none"
    if value not in BIASES:
        hint = did_you_mean(str(value), BIASES)
        raise ConfigError(f"{where}={value} is not none, match or a number.{hint}")
    return str(value)


_READ = {
    "exclude_classes": _classes,
    "only_classes": _classes,
    "fraction": number,
    "seed": integer,
    "labels": boolean,
    "folder": _path,
    "bias": _bias,
}
