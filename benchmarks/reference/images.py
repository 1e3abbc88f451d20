"""Images of the usual loop: a DataLoader over PIL images with transforms of torchvision."""

import importlib
import importlib.util
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kdrun.config.schema import AugmentConfig
from kdrun.data.cropped import stored_split
from kdrun.data.images import LazyImages, Split
from kdrun.data.loaders.rendering import fill_colour
from kdrun.errors import ConfigError
from kdrun.types import Batch, Mixture, Normalisation
from kdrun.vision import import_torchvision

Transform = Callable[[Any], Any]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
LEAVE_OUT = "leave 'usual' out of compare."


class PilImages:
    """A map-style data set of images and labels, each made a PIL image and transformed when it is
    asked for, as torchvision's own data sets do.

    Raises ConfigError for values that no PIL image holds.
    """

    def __init__(self, split: Split, augment: AugmentConfig, normalisation: Normalisation) -> None:
        channels, height, width = split.shape
        if split.images.dtype != torch.uint8 or channels not in (1, 3):
            raise ConfigError(
                "The usual loop reads grey or colour images of 8 bits, which these data are not: "
                f"{LEAVE_OUT}"
            )
        pixels = split.in_memory().permute(0, 2, 3, 1).contiguous().numpy()
        self.pixels = pixels[:, :, :, 0] if channels == 1 else pixels
        self.targets = split.targets.tolist()
        self.transform = _transform(augment, normalisation, (height, width))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> tuple[Tensor, int, int]:
        from PIL import Image

        image = Image.fromarray(self.pixels[number])
        return self.transform(image), self.targets[number], number


class FileImages:
    """A map-style data set of image files, decoded and transformed when they are asked for, as
    torchvision's `ImageFolder`: random crops of the photographs, or a resize and a centre crop.
    """

    def __init__(self, split: Split, augment: AugmentConfig, normalisation: Normalisation) -> None:
        assert isinstance(split.images, LazyImages)
        transforms = import_torchvision().transforms
        self.paths = [split.images.name(number) for number in range(len(split))]
        self.targets = split.targets.tolist()
        self.mode = "L" if split.shape[0] == 1 else "RGB"
        height, width = split.shape[1:]
        sized: list[Transform] = []
        if augment.crop != "resized":
            covering = min(stored_split(split).shape[1:])
            sized = [transforms.Resize(covering), transforms.CenterCrop((height, width))]
        self.transform = _transform(augment, normalisation, (height, width), sized)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Tensor, int, int]:
        from PIL import Image

        path = self.paths[number]
        assert path is not None
        with Image.open(path) as image:
            return self.transform(image.convert(self.mode)), self.targets[number], number


def are_files(split: Split) -> bool:
    """Whether the images of a split are known by files of their own, not parts of an archive."""
    name = split.images.name(0) if isinstance(split.images, LazyImages) and len(split) else None
    return name is not None and Path(name).is_file()


def usual_batches(
    split: Split,
    augment: AugmentConfig,
    normalisation: Normalisation,
    batch_size: int,
    workers: int = 0,
    *,
    from_files: bool = False,
    num_classes: int = 0,
    pinned: bool = False,
) -> Generator[Batch, None, None]:
    """Shuffled batches without end, in this process or from `workers` others.

    from_files: decode the image files; else they are in memory. num_classes: for mixing. pinned:
    in memory that a GPU copies without waiting.
    """
    mix = _mixing(augment, num_classes)
    kind = FileImages if from_files else PilImages
    loader: DataLoader[Any] = DataLoader(
        kind(split, augment, normalisation),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=pinned and workers > 0,
        pin_memory=pinned,
        drop_last=len(split) >= batch_size,
    )
    while True:
        for images, targets, index in loader:
            yield _mixed(images, targets, index, mix)


def _mixed(images: Tensor, targets: Tensor, index: Tensor, mix: Mix | None) -> Batch:
    """A batch; where it is mixed, each image with the one before it, as torchvision does."""
    if mix is None:
        return Batch(images, targets, index)
    images, labels = mix(images, targets)
    if labels.dim() == 1:  # this batch stays as it is
        return Batch(images, targets, index)
    partners = targets.roll(1)
    share = labels.gather(1, targets[:, None])[:, 0]
    return Batch(images, targets, index, mixture=Mixture(partners, share))


def _mixing(augment: AugmentConfig, num_classes: int) -> Mix | None:
    """torchvision's MixUp, CutMix, or one of them per batch."""
    if not augment.mixes:
        return None
    import_torchvision()
    v2 = importlib.import_module("torchvision.transforms.v2")
    kinds = [
        v2.RandomApply([transform(alpha=mixing.alpha, num_classes=num_classes)], p=mixing.prob)
        for transform, mixing in ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
        if mixing.alpha
    ]
    switch = augment.switch_prob
    mix: Mix = kinds[0] if len(kinds) == 1 else v2.RandomChoice(kinds, p=[1 - switch, switch])
    return mix


def _transform(
    augment: AugmentConfig,
    normalisation: Normalisation,
    size: tuple[int, int],
    sized: list[Transform] | None = None,
) -> Transform:
    """sized: what comes before the augmentation."""
    torchvision = import_torchvision()
    transforms = torchvision.transforms
    steps = list(sized or [])
    scale, ratio = tuple(augment.scale), tuple(augment.ratio)
    if augment.crop == "resized":
        kind = "bilinear" if augment.interpolation == "bilinear" else "bicubic"
        mode = transforms.InterpolationMode(kind)
        steps.append(transforms.RandomResizedCrop(size, scale, ratio, interpolation=mode))
    elif augment.crop_padding:
        border = augment.padding_mode
        steps.append(transforms.RandomCrop(size, augment.crop_padding, padding_mode=border))
    if augment.flip:
        steps.append(transforms.RandomHorizontalFlip())
    steps += _policy(augment, normalisation, transforms)
    steps += [transforms.ToTensor(), transforms.Normalize(normalisation.mean, normalisation.std)]
    if augment.erasing.prob:
        erasing = augment.erasing
        value = "random" if erasing.mode == "pixel" else 0
        scale, ratio = tuple(erasing.scale), tuple(erasing.ratio)
        steps.append(transforms.RandomErasing(erasing.prob, scale, ratio, value=value))
    composed: Transform = transforms.Compose(steps)
    return composed


def _policy(augment: AugmentConfig, normalisation: Normalisation, transforms: Any) -> list[Any]:
    """The transforms of PIL images for a policy and colour jitter, of torchvision or timm."""
    rand = {"num_ops": augment.num_ops, "magnitude": int(augment.magnitude)}
    auto, policies = transforms.AutoAugment, transforms.AutoAugmentPolicy
    made: dict[str, Callable[[], Any]] = {
        "randaugment": lambda: transforms.RandAugment(**rand),
        "timm_randaugment": lambda: _timm(augment, normalisation),
        "trivialaugment": transforms.TrivialAugmentWide,
        "autoaugment": lambda: auto(policies.IMAGENET),
        "autoaugment_cifar10": lambda: auto(policies.CIFAR10),
        "autoaugment_svhn": lambda: auto(policies.SVHN),
        "three_augment": lambda: transforms.RandomChoice(
            [
                transforms.Grayscale(len(normalisation.mean)),
                transforms.RandomSolarize(128, p=1.0),
                transforms.GaussianBlur(13, (0.1, 2.0)),
            ]
        ),
    }
    steps = [made[augment.policy]()] if augment.policy in made else []
    jitter = augment.color_jitter
    factors = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    return steps + ([transforms.ColorJitter(*factors)] if any(factors) else [])


def _timm(augment: AugmentConfig, normalisation: Normalisation) -> Transform:
    """timm's RandAugment. Raises ConfigError without timm."""
    if importlib.util.find_spec("timm") is None:
        raise ConfigError(
            "The usual loop takes timm_randaugment from timm: pip install 'kdrun[timm]', or "
            f"{LEAVE_OUT}"
        )
    library = importlib.import_module("timm.data.auto_augment")
    from PIL.Image import Image, Resampling

    def posterized(image: Image, bits: int, **more: Any) -> Image:
        """With 0 bits black: newer versions of PIL refuse what timm then asks for."""
        return library.posterize(image, bits, **more) if bits else image.point(lambda _: 0)  # type: ignore[no-any-return]

    settings: dict[str, Any] = {"img_mean": fill_colour(normalisation.mean)}
    if augment.interpolation != "random":
        settings["interpolation"] = Resampling[augment.interpolation.upper()]
    strength = f"m{int(augment.magnitude)}-mstd{augment.magnitude_std:g}"
    name = f"rand-{strength}-n{augment.num_ops}-inc1"
    transform: Transform = library.rand_augment_transform(name, settings)
    for operation in transform.ops:  # type: ignore[attr-defined]
        if operation.name.startswith("Posterize"):
            operation.aug_fn = posterized
    return transform
