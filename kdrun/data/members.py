"""Where the bytes of an image are: a file of its own, or part of a container file.

A `Source` is the path of an image file, or a `Member` of a container (a tar shard, a Parquet file).
Everything that reads images goes through `open_source`, so all sources share decoding, cache and
checks. `str(source)` names the image in messages and in the digest of a data set.
"""

import io
import os
from abc import ABC, abstractmethod
from typing import BinaryIO


class Member(ABC):
    """One image inside a container file. Can be pickled: loader workers receive it."""

    @abstractmethod
    def __str__(self) -> str:
        """The container's path, followed by the image's name inside it."""

    @abstractmethod
    def read(self) -> bytes:
        """The bytes of the image file; ValueError or OSError when the container has changed."""


Source = str | Member


def open_source(source: Source) -> BinaryIO:
    """Open the image for reading, at its first byte; the caller closes it.

    Raises ValueError for a path that is no regular file (a pipe would block).
    """
    if isinstance(source, Member):
        return io.BytesIO(source.read())
    if not os.path.isfile(source):
        raise ValueError("not a file")
    return open(source, "rb")
