"""Lists of encoded images: where their bytes are, and which split and class they belong to.

A `Source` is the path of an image file, or a `Member` of a container (a tar shard, a Parquet file).
All readers go through `open_source`, so all sources share decoding, cache and checks. `str(source)`
names the image in messages and in the digest of a data set.
"""

import hashlib
import io
import itertools
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, overload


class Member(ABC):
    """An image inside a container file. Must be picklable: loader workers receive it."""

    @abstractmethod
    def __str__(self) -> str:
        """The container's path, followed by the image's name inside it."""

    @abstractmethod
    def read(self) -> bytes:
        """Bytes of the image file. Raises ValueError or OSError if the container has changed."""


Source = str | Member


def changed_at(stat: os.stat_result) -> int:
    """A number that changes when a file is written or replaced.

    The modification time alone stays if a file of equal age and size is moved to its place.
    """
    return hash((stat.st_mtime_ns, stat.st_ctime_ns))


def open_source(source: Source) -> BinaryIO:
    """Open the image for reading; the caller closes it.

    Raises ValueError for a path that is not a regular file (a pipe would block).
    """
    if isinstance(source, Member):
        return io.BytesIO(source.read())
    if not os.path.isfile(source):
        raise ValueError("not a file")
    return open(source, "rb")


class PathList(Sequence[str]):
    """File paths in about 35 bytes each, instead of 150 as a list of strings.

    Folders are stored once, names in one buffer. Loader workers share the buffers with the process
    that forked them; a list would be copied, because reading a string changes its reference count.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._folders: list[str] = []  # each with its trailing separator
        self._number: dict[str, int] = {}
        self._folder_of = array("I")
        self._names = bytearray()  # UTF-8
        self._ends = array("Q", [0])  # name i is at [ends[i], ends[i + 1])
        self.extend(paths)

    def extend(self, paths: Iterable[str]) -> None:
        """Append paths."""
        if isinstance(paths, PathList):
            self._extend_by_list(paths)
            return
        paths = list(paths)
        starts = [path.rfind(os.sep) + 1 for path in paths]
        folders = [path[:start] for path, start in zip(paths, starts, strict=True)]
        self._register(dict.fromkeys(folders))
        self._folder_of.extend([self._number[folder] for folder in folders])
        names = [
            path[start:].encode("utf-8", "surrogatepass")
            for path, start in zip(paths, starts, strict=True)
        ]
        ends = itertools.accumulate(map(len, names), initial=len(self._names))
        self._ends.extend(itertools.islice(ends, 1, None))
        self._names += b"".join(names)

    def _extend_by_list(self, other: "PathList") -> None:
        self._register(other._folders)
        numbers = [self._number[folder] for folder in other._folders]
        first = len(self._names)
        self._folder_of.extend([numbers[number] for number in other._folder_of])
        self._ends.extend([first + end for end in itertools.islice(other._ends, 1, None)])
        self._names += other._names

    def _register(self, folders: Iterable[str]) -> None:
        for folder in folders:
            if folder not in self._number:
                self._number[folder] = len(self._folders)
                self._folders.append(folder)

    def __len__(self) -> int:
        return len(self._folder_of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]  # negative and out of range as for a list
        name = self._names[self._ends[row] : self._ends[row + 1]]
        return self._folders[self._folder_of[row]] + name.decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        start = 0
        for number, end in zip(self._folder_of, itertools.islice(self._ends, 1, None), strict=True):
            name = self._names[start:end].decode("utf-8", "surrogatepass")
            yield self._folders[number] + name
            start = end


@dataclass(frozen=True)
class FileList:
    """The images of one split: files, or members of container files.

    targets: class numbers. sizes: bytes of each image. times: `changed_at` of its file.
    """

    paths: Sequence[Source]
    targets: Sequence[int]
    sizes: Sequence[int]
    times: Sequence[int]

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows: Sequence[int]) -> "FileList":
        """The images at positions `rows`, in that order."""
        paths: Sequence[Source]
        if isinstance(self.paths, PathList):
            paths = PathList(self.paths[row] for row in rows)
        else:
            paths = [self.paths[row] for row in rows]
        return FileList(
            paths,
            array("q", (self.targets[row] for row in rows)),
            array("q", (self.sizes[row] for row in rows)),
            array("q", (self.times[row] for row in rows)),
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

    @cached_property
    def state(self) -> str:
        """The digest with times: tells whether a file has changed."""
        return self.digest()

    def digest(self, *, times: bool = True, form: str = "") -> str:
        """sha256 over names, classes and sizes of all files, and their times.

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
