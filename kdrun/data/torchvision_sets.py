"""Data sets that torchvision downloads and reads."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from kdrun.config import places
from kdrun.data.class_folders import FOLDER_OPTIONS, read_class_folders
from kdrun.data.decoding.options import ReadOptions, takes_options
from kdrun.data.decoding.read import read_images
from kdrun.data.images import SPLITS, RawDataset, Split
from kdrun.data.paths import expanded
from kdrun.data.tree import FileList, Tree, changed_at
from kdrun.errors import AbsentDataError, ConfigError, DataError
from kdrun.vision import import_torchvision

Arguments = dict[str, Any]
TRAIN_AND_TEST: tuple[Arguments, ...] = ({"split": "train"}, {"split": "test"})


@takes_options(*FOLDER_OPTIONS)
def cifar10(*, root: str = "data", download: bool = True, options: ReadOptions) -> RawDataset:
    """CIFAR-10: 50,000 training and 10,000 test images, `[3, 32, 32]`, of ten classes.

    Reads torchvision's files, or class folders (see `class_folders`).
    """
    layout = "cifar-10-batches-py/{data_batch_1..5, test_batch}"
    return _from_folders("cifar10", root, layout, options) or _cifar(
        "CIFAR10", layout, root, download
    )


@takes_options(*FOLDER_OPTIONS)
def cifar100(*, root: str = "data", download: bool = True, options: ReadOptions) -> RawDataset:
    """CIFAR-100: 50,000 training and 10,000 test images, `[3, 32, 32]`, of a hundred classes.

    Reads torchvision's files, or class folders (see `class_folders`).
    """
    layout = "cifar-100-python/{train, test, meta}"
    return _from_folders("cifar100", root, layout, options) or _cifar(
        "CIFAR100", layout, root, download
    )


@takes_options(*FOLDER_OPTIONS)
def svhn(*, root: str = "data", download: bool = True, options: ReadOptions) -> RawDataset:
    """SVHN, cropped: 73,257 training and 26,032 test images, `[3, 32, 32]`, of ten digits.

    Reads torchvision's files, or class folders (see `class_folders`).
    """
    if (raw := _from_folders("svhn", root, "train_32x32.mat", options)) is not None:
        return raw
    layout = "{train_32x32.mat, test_32x32.mat}"
    parts = _open("SVHN", root, layout, download, TRAIN_AND_TEST)
    train, test = (_split(part.data, part.labels) for part in parts)
    return RawDataset(tuple("0123456789"), train, None, test)


@takes_options(*FOLDER_OPTIONS)
def stl10(*, root: str = "data", download: bool = True, options: ReadOptions) -> RawDataset:
    """STL-10, labelled part: 5,000 training and 8,000 test images, `[3, 96, 96]`, of ten classes.

    Reads torchvision's files, or class folders (see `class_folders`).
    """
    layout = "stl10_binary/{train_X.bin, train_y.bin, test_X.bin, test_y.bin, class_names.txt}"
    if (raw := _from_folders("stl10", root, layout, options)) is not None:
        return raw
    parts = _open("STL10", root, layout, download, TRAIN_AND_TEST)
    train, test = (_split(part.data, part.labels) for part in parts)
    return RawDataset(tuple(parts[0].classes), train, None, test)


@takes_options("cache", *FOLDER_OPTIONS)
def dtd(
    *,
    root: str = "data",
    download: bool = True,
    partition: int = 1,
    image_size: int | list[int] = 224,
    options: ReadOptions,
) -> RawDataset:
    """Describable Textures: 1,880 training, validation and test images each, of 47 textures.

    partition: which of the ten published divisions into splits.
    image_size: the photographs differ in size; they are resized to cover it and cropped at the
    centre.

    Reads root/dtd/dtd, root/dtd or root with `images/` and `labels/`, or class folders (see
    `class_folders`).
    """
    if not 1 <= partition <= 10:
        raise ConfigError(f"dataset.partition={partition} must lie between 1 and 10.")
    folder = expanded(root, "dataset.root")
    places = (folder / "dtd" / "dtd", folder / "dtd", folder)
    base = next((place for place in places if _is_dtd(place)), None)
    if base is None:
        raw = read_class_folders("dtd", folder, options, image_size=image_size)
        if raw is not None:
            return raw
        _open("DTD", root, "dtd/dtd/{images, labels}", download, ({"partition": partition},))
        base = folder / "dtd" / "dtd"
    base = base.absolute()
    names = {
        name: (base / "labels" / f"{name}{partition}.txt").read_text().split() for name in SPLITS
    }
    classes = tuple(sorted({line.split("/")[0] for line in names["train"]}))
    splits = {name: _file_list(base / "images", lines, classes) for name, lines in names.items()}
    tree = Tree(base / "images", classes, splits)
    return read_images(tree, replace(options, image_size=image_size, channels=3))


def _is_dtd(folder: Path) -> bool:
    """Whether a folder holds the images and split lists of DTD."""
    return (folder / "images").is_dir() and (folder / "labels").is_dir()


def _file_list(images: Path, lines: list[str], classes: tuple[str, ...]) -> FileList:
    number = {name: position for position, name in enumerate(classes)}
    for line in lines:  # torchvision does not verify these files after unpacking
        parts = line.split("/")
        if len(parts) != 2 or parts[0] not in number or parts[1] in (".", ".."):
            raise DataError(
                f"The split lists of {images} contain {line[:80]!r}, which is not an image of a "
                f"class: remove {images.parent.parent} to download it again."
            )
    paths = [images / line for line in lines]
    try:
        stats = [path.stat() for path in paths]
    except OSError as error:
        raise DataError(
            f"{error.filename} is missing: remove {images.parent.parent} to download it again."
        ) from None
    return FileList(
        [str(path) for path in paths],
        [number[line.split("/")[0]] for line in lines],
        [stat.st_size for stat in stats],
        [changed_at(stat) for stat in stats],
    )


def _from_folders(key: str, root: str, layout: str, options: ReadOptions) -> RawDataset | None:
    """The data set from class folders; None without any, or if torchvision's files are there."""
    folder = expanded(root, "dataset.root")
    if (folder / layout.split("/")[0]).exists():
        return None
    return read_class_folders(key, folder, options)


def _cifar(name: str, layout: str, root: str, download: bool) -> RawDataset:
    parts = _open(name, root, layout, download, ({"train": True}, {"train": False}))
    train, test = (_split(part.data.transpose(0, 3, 1, 2), part.targets) for part in parts)
    return RawDataset(tuple(parts[0].classes), train, None, test)


def _split(images: np.ndarray, labels: Any) -> Split:
    """A copy of images `[N, C, H, W]` and labels as a split."""
    pixels = torch.from_numpy(np.array(images, dtype=np.uint8, order="C"))
    return Split(pixels, torch.as_tensor(np.asarray(labels), dtype=torch.int64))


def _open(
    name: str, root: str, layout: str, download: bool, variants: tuple[Arguments, ...]
) -> list[Any]:
    """torchvision's data set `name` for each of `variants`, downloaded first if necessary."""
    folder = expanded(root, "dataset.root")
    where = f"{folder}/{layout}"

    def read() -> list[Any]:
        dataset_class = _torchvision_class(name)
        return [
            dataset_class(root=str(folder), download=False, **arguments) for arguments in variants
        ]

    try:
        return read()
    except (RuntimeError, FileNotFoundError):
        # torchvision raises these for files that are absent or differ from the published ones
        if not download:
            raise absent(name, folder, where) from None
    for arguments in variants:
        download_once(name, folder, where, arguments)
    try:
        return read()
    except (RuntimeError, FileNotFoundError) as error:
        raise DataError(
            f"{name} in {folder} is not the published data set ({error}): remove {where} to "
            "download it again."
        ) from None


def download_once(name: str, root: Path, layout: str, arguments: Arguments) -> None:
    """Let torchvision download `name` into `root`, once for all concurrent runs.

    Raises DataError on failure, naming the files to place there by hand.
    """
    if not places.may_download(root):
        raise AbsentDataError(
            f"{name} is not in {root}. This run's settings come from elsewhere, so it must not "
            "choose a download folder: type dataset.root=... yourself."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            _torchvision_class(name)(root=str(root), download=True, **arguments)
    except Exception as error:  # torchvision passes on errors of network, disk and checksum
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({reason[:200]}). Put the files "
            f"there by hand ({layout}), or set dataset.root to the folder that has them."
        ) from None


def absent(name: str, folder: Path, layout: str) -> AbsentDataError:
    """The error for missing data that must not be downloaded."""
    return AbsentDataError(
        f"{name} was not found in {folder} (expected: {layout}): set dataset.root to the folder "
        "that has it, or dataset.download=true to download it."
    )


def _torchvision_class(name: str) -> Callable[..., Any]:
    dataset_class: Callable[..., Any] = getattr(import_torchvision().datasets, name)
    return dataset_class
