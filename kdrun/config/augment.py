"""Schema of the augmentation of training images.

Names and defaults follow torchvision's transforms and timm's `create_transform`. Everything beyond
crops and flips is quiet: it is part of dumps and fingerprints only where it is set.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from kdrun.config.settings import setting
from kdrun.ranges import Choices, Count, Items, NotNegative, Positive, Range

Probability = Annotated[float, Range(low=0, high=1)]
MixAlpha = Annotated[float, Range(low=0, high=1000, usual="0.1 to 1")]
CropPadding = Annotated[int, Range(low=0, high=65_536)]
Interval = Annotated[list[Positive], Items(2, 2)]
CROP_PADDING = "pixels of border before a random crop"
FLIP = "mirror left-right with probability 0.5"

NO_POLICY = "none"
# Policy → the settings that it reads.
POLICIES: dict[str, tuple[str, ...]] = {
    NO_POLICY: (),
    "randaugment": ("num_ops", "magnitude"),
    "timm_randaugment": ("num_ops", "magnitude", "magnitude_std", "interpolation"),
    "autoaugment": (),
    "autoaugment_cifar10": (),
    "autoaugment_svhn": (),
    "trivialaugment": (),
    "three_augment": (),
}
POLICY_SETTINGS = ("num_ops", "magnitude", "magnitude_std", "interpolation")
INTERPOLATIONS = ("bilinear", "bicubic", "random")
TEACHER_VIEWS = ("same", "weak", "fixed", "independent")


@dataclass(frozen=True)
class CropFlipConfig:
    """The usual crops and flips of a data set."""

    crop_padding: CropPadding = setting(0, CROP_PADDING)
    flip: bool = setting(False, FLIP)


@dataclass(frozen=True)
class JitterConfig:
    """Colour jitter, as torchvision's ColorJitter: each factor from [1 - x, 1 + x]."""

    brightness: Annotated[float, Range(low=0, high=1)] = setting(0.0, "brightness factor 1 ± x")
    contrast: Annotated[float, Range(low=0, high=1)] = setting(0.0, "contrast factor 1 ± x")
    saturation: Annotated[float, Range(low=0, high=1)] = setting(0.0, "saturation factor 1 ± x")
    hue: Annotated[float, Range(low=0, high=0.5)] = setting(0.0, "hue shift ± x of the circle")


@dataclass(frozen=True)
class ErasingConfig:
    """Random erasing (Zhong et al. 2017, arXiv 1708.04896), after normalisation.

    mode: const: the mean colour; rand: one normal colour; pixel: normal noise (timm's `remode`).
    """

    prob: Probability = setting(0.0, "share of images with an erased rectangle; 0: none")
    scale: Interval = setting(
        lambda: [0.02, 0.33], "area of the rectangle, as a share of the image"
    )
    ratio: Interval = setting(lambda: [0.3, 3.3], "aspect ratio of the rectangle")
    mode: Annotated[str, Choices(("const", "rand", "pixel"))] = setting(
        "const", "filled with: const (mean colour) | rand (one colour) | pixel (noise)"
    )


@dataclass(frozen=True)
class MixConfig:
    """Mixing with a partner image, as timm's Mixup in mode `elem`."""

    alpha: MixAlpha = setting(0.0, "Beta(alpha, alpha) of the mixing share; 0: no mixing")
    prob: Probability = setting(1.0, "share of images that are mixed")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of the training images, per image and epoch."""

    crop_padding: CropPadding = setting(0, CROP_PADDING)
    flip: bool = setting(False, FLIP)
    crop: Annotated[str, Choices(("padded", "resized", "none"))] = setting(
        "padded", "padded (crop_padding) | resized (RandomResizedCrop) | none", quiet=True
    )
    padding_mode: Annotated[str, Choices(("constant", "reflect"))] = setting(
        "constant", "border of crop=padded: constant (black) | reflect", quiet=True
    )
    scale: Interval = setting(
        lambda: [0.08, 1.0], "crop=resized: area of the crop, as a share of the image", quiet=True
    )
    ratio: Interval = setting(
        lambda: [3 / 4, 4 / 3], "crop=resized: aspect ratio of the crop", quiet=True
    )
    interpolation: Annotated[str, Choices(INTERPOLATIONS)] = setting(
        "bilinear",
        "of resized crops and timm_randaugment's moves: bilinear | bicubic | random (of the two)",
        quiet=True,
    )
    policy: Annotated[str, Choices(tuple(POLICIES))] = setting(
        NO_POLICY, "operations drawn per image: none | randaugment | autoaugment | ...", quiet=True
    )
    num_ops: Annotated[int, Range(low=1, high=16)] = setting(
        2, "randaugment: operations per image", quiet=True
    )
    magnitude: Annotated[float, Range(low=0, high=30)] = setting(
        9,
        "randaugment: strength of every operation, 0 to 30; timm_randaugment: 0 to 10",
        quiet=True,
    )
    magnitude_std: NotNegative = setting(
        0.0, "timm_randaugment: standard deviation of the strength", quiet=True
    )
    color_jitter: JitterConfig = setting(JitterConfig(), "as torchvision's ColorJitter", quiet=True)
    erasing: ErasingConfig = setting(ErasingConfig(), "random erasing", quiet=True)
    mixup: MixConfig = setting(MixConfig(), "mixup: blend with a partner image", quiet=True)
    cutmix: MixConfig = setting(MixConfig(), "CutMix: paste a box of a partner image", quiet=True)
    switch_prob: Probability = setting(
        0.5, "with mixup and cutmix: share of the images that get CutMix", quiet=True
    )
    cycle: Count | None = setting(
        None,
        "views per image, repeated in turn, so that the teacher can be cached; null: new ones",
        quiet=True,
    )
    teacher_view: Annotated[str, Choices(TEACHER_VIEWS)] = setting(
        "same",
        "what the teacher sees: same | weak (crop, flip) | fixed (plain image) | independent",
        quiet=True,
    )
    strong: Annotated[str, Choices(tuple(POLICIES))] | None = setting(
        None, "policy of the second view of mlkd and crld; null: a built-in one", quiet=True
    )

    @property
    def is_crop_flip(self) -> bool:
        """Whether images are only cropped with a border and flipped."""
        return self.pixels_only == AugmentConfig(self.crop_padding, self.flip)

    @property
    def pixels_only(self) -> "AugmentConfig":
        """The settings that decide a student's pixels, cycle and second views left out."""
        return replace(self, cycle=None, teacher_view="same", strong=None)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with partner images."""
        return any(mix.alpha > 0 and mix.prob > 0 for mix in (self.mixup, self.cutmix))


def from_crop_flip(usual: CropFlipConfig) -> AugmentConfig:
    """The data set's usual crops and flips as an augmentation."""
    return AugmentConfig(usual.crop_padding, usual.flip)


def labels_only(augment: AugmentConfig) -> AugmentConfig:
    """The settings that count for a training without a teacher."""
    return replace(augment, teacher_view="same", strong=None)


def fill_in(node: dict[str, Any], usual: CropFlipConfig) -> dict[str, Any]:
    """The node of an augmentation; `crop_padding: null` and `flip: null` are the data set's."""
    own = {"crop_padding": usual.crop_padding, "flip": usual.flip}
    filled = {
        key: own[key] if value is None and key in own else value for key, value in node.items()
    }
    if filled.get("crop") == "none":  # equal settings have one written form
        filled |= {"crop": "padded", "crop_padding": 0}
    if filled.get("crop") == "resized":
        filled |= {"crop_padding": 0, "padding_mode": "constant"}
    return filled
