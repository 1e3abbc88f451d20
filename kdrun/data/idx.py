"""MNIST and Fashion-MNIST from their original files, four arrays in the IDX format.

Format: http://yann.lecun.com/exdb/mnist: two zero bytes, a type code (8: unsigned bytes), the
number of dimensions, each dimension as a big-endian 32-bit number, then the values.
"""

import gzip
import math
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdrun.data.class_folders import FOLDER_OPTIONS, PUBLISHED, read_class_folders
from kdrun.data.decoding.options import ReadOptions, takes_options
from kdrun.data.images import RawDataset, Split
from kdrun.data.paths import expanded
from kdrun.data.torchvision_sets import absent, download_once
from kdrun.errors import DataError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")  # package dataset-fashion-mnist
LARGEST_BYTES = 256 * 2**20  # unpacked; the largest original file has 45 MiB


@takes_options(*FOLDER_OPTIONS)
def mnist(*, root: str = "data", download: bool = True, options: ReadOptions) -> RawDataset:
    """MNIST: 60,000 training and 10,000 test images, `[1, 28, 28]`, of ten handwritten digits.

    Reads the four files, plain or `.gz`, from `root/MNIST/raw` or `root`, or class folders (see
    `class_folders`). Missing files are downloaded to `root/MNIST/raw` if `download` is true.
    Raises DataError otherwise.
    """
    folder = expanded(root, "dataset.root")
    files = _find("MNIST", folder, ())
    if files is None and (raw := read_class_folders("mnist", folder, options)):
        return raw
    return _read("MNIST", "mnist", folder, files, download)


@takes_options(*FOLDER_OPTIONS)
def fashion_mnist(*, root: str = "data", download: bool = True, options: ReadOptions) -> RawDataset:
    """Fashion-MNIST: 60,000 training and 10,000 test images, `[1, 28, 28]`, of ten garments.

    Files as for `mnist`, in `root/FashionMNIST/raw` or `root`. Falls back to Debian's package
    `dataset-fashion-mnist`, if installed, before downloading.
    """
    folder = expanded(root, "dataset.root")
    files = _find("FashionMNIST", folder, ())
    if files is None and (raw := read_class_folders("fashion_mnist", folder, options)):
        return raw
    files = files or _find("FashionMNIST", folder, (DEBIAN_FASHION,))
    raw = _read("FashionMNIST", "fashion_mnist", folder, files, download)
    if files == DEBIAN_FASHION:
        note = f"Fashion-MNIST is not in {folder}: read from Debian's package, {files}."
        return replace(raw, notes=(note,))
    return raw


def _find(name: str, root: Path, fallbacks: tuple[Path, ...]) -> Path | None:
    """The first folder that holds the four files; None without one."""
    places = (root / name / "raw", root, *fallbacks)
    return next((place for place in places if _complete(place)), None)


def _read(name: str, key: str, root: Path, folder: Path | None, download: bool) -> RawDataset:
    """The data set from the four files in `folder`; None downloads them to `root`."""
    if folder is None:
        folder = root / name / "raw"
        layout = f"{folder}/{{{', '.join(FILES)}}}, plain or .gz"
        if not download:
            raise absent(name, folder, layout)
        download_once(name, root, layout, {"train": True})
    arrays = [read_idx(_file(folder, file)) for file in FILES]
    for images, labels, part in ((0, 1, "training"), (2, 3, "test")):
        if arrays[images].dim() != 3 or arrays[labels].shape != arrays[images].shape[:1]:
            raise DataError(
                f"{folder}: the {part} images are {list(arrays[images].shape)} and the labels "
                f"{list(arrays[labels].shape)}; these are not the files of {name}."
            )
    _check_identity(key, arrays[1], folder)
    train, test = (Split(arrays[at].unsqueeze(1), arrays[at + 1].to(torch.int64)) for at in (0, 2))
    return RawDataset(PUBLISHED[key].classes, train, None, test)


def _check_identity(key: str, labels: Tensor, folder: Path) -> None:
    """Raise DataError if the label counts are those of the other data set in IDX format."""
    counts = tuple(labels.to(torch.int64).bincount(minlength=10).tolist())
    for actual in {"mnist", "fashion_mnist"} - {key}:
        if counts == PUBLISHED[actual].counts["train"]:
            raise DataError(
                f"{folder} holds {PUBLISHED[actual].name}, not {PUBLISHED[key].name}: set "
                f"dataset={actual}, or dataset.root to another folder."
            )


def _file(folder: Path, name: str) -> Path:
    plain = folder / name
    return plain if plain.exists() else folder / f"{name}.gz"


def _complete(folder: Path) -> bool:
    return all(_file(folder, name).exists() for name in FILES)


def read_idx(path: Path) -> Tensor:
    """The uint8 array in an IDX file, plain or gzipped; DataError when it is damaged."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(LARGEST_BYTES + 1)
        zeros, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    except (OSError, EOFError, zlib.error, struct.error):
        raise DataError(
            f"{path} is damaged: replace it, or remove it to download it again."
        ) from None
    values = np.frombuffer(content, np.uint8)[4 + 4 * dimensions :]
    if len(content) > LARGEST_BYTES:
        raise DataError(
            f"{path} holds more than {LARGEST_BYTES // 2**20} MiB, more than any file of MNIST."
        )
    if zeros or kind != 8 or len(values) != math.prod(shape):
        raise DataError(
            f"{path} is not a complete IDX file of bytes: replace it, or remove it to download it "
            "again."
        )
    return torch.from_numpy(values.reshape(shape).copy())
