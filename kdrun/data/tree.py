"""Lists of encoded images: where their bytes are, and which split and class they belong to.

A `Source` is the path of an image file, or a `Member` of a container (a tar shard, a Parquet file).
All readers go through `open_source`, so all sources share decoding, cache and checks. `str(source)`
names the image in messages and in the digest of a data set.
"""

import hashlib
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


class Member(ABC):
    """An image inside a container file. Must be picklable: loader workers receive it."""

    @abstractmethod
    def __str__(self) -> str:
        """The container's path, followed by the image's name inside it."""

    @abstractmethod
    def read(self) -> bytes:
        """Bytes of the image file. Raises ValueError or OSError if the container has changed."""


Source = str | Member


def open_source(source: Source) -> BinaryIO:
    """Open the image for reading; the caller closes it.

    Raises ValueError for a path that is not a regular file (a pipe would block).
    """
    if isinstance(source, Member):
        return io.BytesIO(source.read())
    if not os.path.isfile(source):
        raise ValueError("not a file")
    return open(source, "rb")


@dataclass(frozen=True)
class FileList:
    """The images of one split: files, or members of container files.

    targets: class numbers. sizes: bytes of each image. times: modification time of its file (ns).
    """

    paths: list[Source]
    targets: list[int]
    sizes: list[int]
    times: list[int]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows: Sequence[int]) -> "FileList":
        """The images at positions `rows`, in that order."""
        return FileList(
            [self.paths[row] for row in rows],
            [self.targets[row] for row in rows],
            [self.sizes[row] for row in rows],
            [self.times[row] for row in rows],
        )


@dataclass(frozen=True)
class Tree:
    """Images on disk: class names in the order of their numbers, and the images of each split.

    root: folder above all images. origin: identifies the data set among several with one root
    (a table's file name) and keeps their caches apart. notes: assumptions and skipped files, one
    sentence each.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, FileList]
    origin: str = ""
    notes: tuple[str, ...] = ()

    def digest(self, *, times: bool = True, form: str = "") -> str:
        """sha256 over names, classes and sizes of all files, and their modification times.

        form: how the files are decoded; part of the digest.
        """
        below = len(str(self.root)) + 1
        state = hashlib.sha256(repr((self.classes, form)).encode("utf-8", "backslashreplace"))
        for name, files in self.splits.items():
            state.update(f"{name} {len(files)}\n".encode())
            stamps = files.times if times else [0] * len(files)
            for row in zip(files.paths, files.targets, files.sizes, stamps, strict=True):
                text = f"{str(row[0])[below:]} {row[1:]}\n"
                state.update(text.encode("utf-8", "surrogateescape"))
        return state.hexdigest()
