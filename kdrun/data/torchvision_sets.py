"""Known data sets that torchvision downloads and reads, as arrays of bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from kdrun.config import places
from kdrun.data.class_folders import read_class_folders
from kdrun.data.imagefolder import from_tree, read_settings
from kdrun.data.images import RawDataset, Split
from kdrun.data.measure import Progress
from kdrun.data.paths import expanded
from kdrun.data.tree import FileList, Tree
from kdrun.errors import AbsentDataError, ConfigError, DataError
from kdrun.vision import import_torchvision

Arguments = dict[str, Any]


def cifar10(
    *,
    root: str = "data",
    download: bool = True,
    cache_root: Path | None = None,
    progress: Progress | None = None,
) -> RawDataset:
    """CIFAR-10: 50,000 and 10,000 colour images, `[3, 32, 32]`, of ten classes.

    From torchvision's files, or from class folders (see `class_folders`).
    """
    files = expanded(root, "dataset.root") / "cifar-10-batches-py"
    return _folders("cifar10", files, cache_root, progress) or _cifar(
        "CIFAR10", "cifar-10-batches-py/{data_batch_1..5, test_batch}", root, download
    )


def cifar100(
    *,
    root: str = "data",
    download: bool = True,
    cache_root: Path | None = None,
    progress: Progress | None = None,
) -> RawDataset:
    """CIFAR-100: 50,000 and 10,000 colour images, `[3, 32, 32]`, of a hundred classes.

    From torchvision's files, or from class folders (see `class_folders`).
    """
    files = expanded(root, "dataset.root") / "cifar-100-python"
    return _folders("cifar100", files, cache_root, progress) or _cifar(
        "CIFAR100", "cifar-100-python/{train, test, meta}", root, download
    )


def svhn(
    *,
    root: str = "data",
    download: bool = True,
    cache_root: Path | None = None,
    progress: Progress | None = None,
) -> RawDataset:
    """SVHN, cropped digits: 73,257 and 26,032 colour images, `[3, 32, 32]`, of ten digits.

    From torchvision's files, or from class folders (see `class_folders`).
    """
    files = expanded(root, "dataset.root") / "train_32x32.mat"
    if (raw := _folders("svhn", files, cache_root, progress)) is not None:
        return raw
    parts = _open(
        "SVHN",
        expanded(root, "dataset.root"),
        "{train_32x32.mat, test_32x32.mat}",
        download,
        ({"split": "train"}, {"split": "test"}),
    )
    train, test = (_split(part.data, part.labels) for part in parts)
    return RawDataset(tuple("0123456789"), train, None, test)


def stl10(
    *,
    root: str = "data",
    download: bool = True,
    cache_root: Path | None = None,
    progress: Progress | None = None,
) -> RawDataset:
    """STL-10, labelled part: 5,000 and 8,000 colour images, `[3, 96, 96]`, of ten classes.

    From torchvision's files, or from class folders (see `class_folders`).
    """
    files = expanded(root, "dataset.root") / "stl10_binary"
    if (raw := _folders("stl10", files, cache_root, progress)) is not None:
        return raw
    train, test = _open(
        "STL10",
        expanded(root, "dataset.root"),
        "stl10_binary/{train_X.bin, train_y.bin, test_X.bin, test_y.bin, class_names.txt}",
        download,
        ({"split": "train"}, {"split": "test"}),
    )
    return RawDataset(
        tuple(train.classes),
        _split(train.data, train.labels),
        None,
        _split(test.data, test.labels),
    )


def dtd(
    *,
    root: str = "data",
    download: bool = True,
    partition: int = 1,
    image_size: int | list[int] = 224,
    cache: bool = True,
    cache_root: Path,
    progress: Progress | None = None,
) -> RawDataset:
    """Describable Textures: 1,880 training, validation and test images each, of 47 textures.

    partition: which of the ten published divisions into splits.
    image_size: the photographs differ in size; resized until they cover it, cut at the centre.
    cache: as for `imagefolder`.

    From root/dtd/dtd, root/dtd or root with `images/` and `labels/`, or from class folders (see
    `class_folders`).
    """
    if not 1 <= partition <= 10:
        raise ConfigError(f"dataset.partition={partition} must lie between 1 and 10.")
    folder = expanded(root, "dataset.root")
    base = next(
        (at for at in (folder / "dtd" / "dtd", folder / "dtd", folder) if _is_dtd(at)), None
    )
    if base is None:
        raw = read_class_folders(
            "dtd", folder, cache_root, progress, image_size=image_size, cache=cache
        )
        if raw is not None:
            return raw
        _open("DTD", folder, "dtd/dtd/{images, labels}", download, ({"partition": partition},))
        base = folder / "dtd" / "dtd"
    base = base.absolute()
    names = {
        name: (base / "labels" / f"{name}{partition}.txt").read_text().split()
        for name in ("train", "val", "test")
    }
    classes = tuple(sorted({line.split("/")[0] for line in names["train"]}))
    splits = {name: _file_list(base / "images", lines, classes) for name, lines in names.items()}
    tree = Tree(base / "images", classes, splits)
    settings = read_settings(image_size, 3)
    return from_tree(tree, settings, cache, cache_root, progress)


def _is_dtd(folder: Path) -> bool:
    """Whether a folder holds the images and split lists of DTD."""
    return (folder / "images").is_dir() and (folder / "labels").is_dir()


def _file_list(images: Path, lines: list[str], classes: tuple[str, ...]) -> FileList:
    number = {name: position for position, name in enumerate(classes)}
    for line in lines:  # of a file that torchvision does not check again after unpacking
        parts = line.split("/")
        if len(parts) != 2 or parts[0] not in number or parts[1] in (".", ".."):
            raise DataError(
                f"The labels beside {images} name {line[:80]!r}, which is no image of a class: "
                f"remove {images.parent.parent} to download it again."
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
        [stat.st_mtime_ns for stat in stats],
    )


def _folders(
    key: str, files: Path, cache_root: Path | None, progress: Progress | None
) -> RawDataset | None:
    """The data set from class folders beside where torchvision's files would be; None without."""
    if files.exists():
        return None
    return read_class_folders(key, files.parent, cache_root, progress)


def _cifar(name: str, layout: str, root: str, download: bool) -> RawDataset:
    train, test = _open(
        name, expanded(root, "dataset.root"), layout, download, ({"train": True}, {"train": False})
    )
    splits = [_split(part.data.transpose(0, 3, 1, 2), part.targets) for part in (train, test)]
    return RawDataset(tuple(train.classes), splits[0], None, splits[1])


def _split(images: np.ndarray, labels: Any) -> Split:
    """`[N, C, H, W]` bytes and their labels, in memory of our own."""
    pixels = torch.from_numpy(np.array(images, dtype=np.uint8, order="C"))
    return Split(pixels, torch.as_tensor(np.asarray(labels), dtype=torch.int64))


def _open(
    name: str, root: Path, layout: str, download: bool, variants: tuple[Arguments, ...]
) -> list[Any]:
    """torchvision's class `name` once for each of `variants`, downloaded first if need be."""
    where = f"{root}/{layout}"

    def read() -> list[Any]:
        make = _torchvision_class(name)
        return [make(root=str(root), download=False, **arguments) for arguments in variants]

    try:
        return read()
    except (RuntimeError, FileNotFoundError):
        # torchvision's word for files that are absent or not the published ones
        if not download:
            raise absent(name, root, where) from None
    for arguments in variants:
        download_once(name, root, where, arguments)
    try:
        return read()
    except (RuntimeError, FileNotFoundError) as error:
        raise DataError(
            f"{name} in {root} is not as published ({error}): remove {where} to download it again."
        ) from None


def download_once(name: str, root: Path, layout: str, arguments: Arguments) -> None:
    """Let torchvision fetch `name` into `root`; runs that start together fetch it once.

    Raises DataError when that fails, naming the files that would be found without it.
    """
    if not places.may_download(root):
        raise AbsentDataError(
            f"{name} is not in {root}, and a run that you did not start on this machine downloads "
            "nothing into a folder of its choice: type dataset.root=... yourself."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            _torchvision_class(name)(root=str(root), download=True, **arguments)
    except Exception as error:  # network, disk, checksum: whatever torchvision lets through
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name} is not in {root} and could not be downloaded ({reason[:200]}). Put the files "
            f"there by hand ({layout}), or set dataset.root to the folder that has them."
        ) from None


def absent(name: str, looked_at: Path, layout: str) -> AbsentDataError:
    """The error for data that are not there and may not be downloaded."""
    return AbsentDataError(
        f"{name} was not found in {looked_at} (expected: {layout}): set dataset.root to the folder "
        "that has it, or dataset.download=true to download it."
    )


def _torchvision_class(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(import_torchvision().datasets, name)
    return found
