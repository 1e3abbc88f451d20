"""Schema of the data: where images come from, and the transfer set."""

from dataclasses import dataclass
from typing import Annotated, Any

from kdrun.config import readers
from kdrun.config.augment import CropFlipConfig
from kdrun.config.settings import required, setting
from kdrun.ranges import Choices, Number, Positive, Range, Seed

Workers = Annotated[int, Range(low=0, high=1024)]


@dataclass(frozen=True)
class DatasetConfig:
    """Where the images come from and how they are split.

    target, kwargs: the source function and its arguments (`root`, `download`, ...).
    mean, std: per channel, of pixels scaled to 0..1.
    split_seed: separate from `seed`, so that all seeds share one teacher.
    """

    name: str = required()
    target: str = required(key="_target_")
    kwargs: dict[str, Any] = setting(dict, rest=True)
    mean: list[Number] | None = setting(
        None, "per channel, of pixels scaled to 0..1; null: measured on the training images"
    )
    std: list[Positive] | None = setting(None, "standard deviation, likewise")
    augment: CropFlipConfig = setting(CropFlipConfig(), "its usual crops and flips in training")
    split_seed: Seed = setting(0, "chooses the validation images; all seeds share them")
    resident: Annotated[str, Choices(("auto", "true", "false"))] = setting(
        "auto",
        "true: all images in memory; false: streamed from disk; auto: by size",
        read=readers.resident,
    )
    workers: Workers = setting(0, "loader processes when streaming")
    crop_ratio: Annotated[float, Range(above=0, high=1, usual="0.875")] = setting(
        1.0,
        "the images are centres of stored ones, e.g. 0.875: 224 pixels are cut out of 256",
        quiet=True,
    )
    duplicates: Annotated[str, Choices(("warn", "error", "drop"))] = setting(
        "warn",
        "same image in two splits: warn | error | drop (from train and val)",
        quiet=True,
    )


@dataclass(frozen=True)
class TransferConfig:
    """What the student is trained on, where that is not all training images with their labels.

    bias: constant added to the logits of the left-out classes after training.
    """

    exclude_classes: tuple[readers.ClassKey, ...] = setting(
        (), "classes to leave out, by number or name, e.g. [3]", read=readers.class_keys
    )
    only_classes: tuple[readers.ClassKey, ...] = setting(
        (), "classes to keep instead, e.g. [7,8]", read=readers.class_keys
    )
    fraction: Annotated[float, Range(above=0, high=1, usual="0.03")] = setting(
        1.0, "share of each class that is kept"
    )
    seed: Seed = setting(0, "draws that share")
    labels: bool = setting(True, "false: soft targets only; the CE weight must be 0 (alpha=1)")
    folder: str | None = setting(None, "unlabelled images to use instead of the training images")
    bias: str | Number = setting(
        "none", "logit correction of left-out classes: none | match | a number", read=readers.bias
    )

    @property
    def labelled(self) -> bool:
        """Whether the transfer set has labels."""
        return self.labels and self.folder is None

    @property
    def by_class(self) -> bool:
        """Whether some classes are left out."""
        return bool(self.exclude_classes or self.only_classes)


ALL_TRAINING_IMAGES = TransferConfig()
