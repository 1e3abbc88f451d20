"""Paths that a table or a container names: resolved below one folder, and kept inside it."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from kdrun.data.containers.listing import abbreviated
from kdrun.data.decoding.formats import image_extensions
from kdrun.errors import DataError

REMOTE = ("http://", "https://", "s3://", "gs://", "hf://", "ftp://", "pipe:")


@dataclass(frozen=True)
class File:
    """A file that exists. size in bytes, time of its last change in ns."""

    path: str
    size: int
    time: int


@dataclass
class PathResolver:
    """Turns listed paths into files below `root`.

    what: the file that lists them, for messages. extension: appended to every path. follow_links:
    also paths and links that lead out of `root`.
    """

    root: Path
    what: str
    extension: str = ""
    follow_links: bool = False
    missing: list[tuple[str, str]] = field(default_factory=list)  # (place, path)
    _folders: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._base = str(self.root)
        self._real = os.path.realpath(self._base)

    def resolve(self, text: str, place: str) -> File | None:
        """The file that `text` names; None (and an entry in `missing`) when there is none.

        Raises DataError for an address on the network, for a path that leads out of `root` and for
        what is no regular file. `place` says where the path is written ("line 7").
        """
        if text.lower().startswith(REMOTE):
            raise DataError(
                f"{self.what}, {place}: {text[:120]} is not on this machine: download the images "
                "and list their paths."
            )
        if "\0" in text:
            raise DataError(f"{self.what}, {place}: the path contains a zero byte.")
        path = os.path.normpath(os.path.join(self._base, text + self.extension))
        if "\\" in text and os.sep == "/" and not os.path.lexists(path):
            path = os.path.normpath(
                os.path.join(self._base, text.replace("\\", "/") + self.extension)
            )
        real = self._real_path(path)
        if not self.follow_links:
            self._check_inside(real, text, place)
        try:
            found = os.stat(real)
        except (OSError, ValueError):
            self.missing.append((place, path))
            return None
        if not S_ISREG(found.st_mode):
            raise DataError(f"{self.what}, {place}: {path} is {_kind(path)}, not an image file.")
        return File(self._below(path, real), found.st_size, found.st_mtime_ns)

    def _real_path(self, path: str) -> str:
        """`os.path.realpath`, with the folders resolved once."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)
        return os.path.realpath(real) if os.path.islink(real) else real

    def _check_inside(self, real: str, text: str, place: str) -> None:
        if os.path.commonpath((self._real, real)) == self._real:
            return
        raise DataError(
            f"{self.what}, {place}: {text[:200]} leads out of {self._base}, to {real}: set "
            f"dataset.root={os.path.dirname(real)} (or a folder above that holds all images), or "
            "dataset.follow_links=true to allow it."
        )

    def _below(self, path: str, real: str) -> str:
        """The path as written where it starts with `root`, else its place below the real root."""
        if path.startswith(self._base + os.sep) or self.follow_links:
            return path
        return os.path.join(self._base, os.path.relpath(real, self._real))

    def check_missing(self, total: int) -> None:
        """Raise DataError when listed files do not exist, with the likely cause."""
        if not self.missing:
            return
        shown = abbreviated([f"{place}: {path}" for place, path in self.missing], 3)
        raise DataError(
            f"{self.what}: {len(self.missing):,} of {total:,} listed files do not exist ({shown})"
            f"{self._advice()}."
        )

    def _advice(self) -> str:
        """What would make the first missing file be found."""
        _, path = self.missing[0]
        folder, name = os.path.split(path)
        for ending in _endings(path):
            return f": add dataset.extension={ending}"
        if self.extension and os.path.exists(path.removesuffix(self.extension)):
            return ": leave out dataset.extension"
        relative = os.path.relpath(path, self._base)
        for candidate in _folders_below(self._base):
            for ending in ("", *sorted(image_extensions())):
                if os.path.isfile(os.path.join(candidate, relative + ending)):
                    more = f" and dataset.extension={ending}" if ending else ""
                    return f": set dataset.root={candidate}{more}"
        for entry in _names(folder):
            if _folded(entry) == _folded(name):
                return f": there is {entry!r}, which differs in case or encoding; rename it"
        return (
            ": paths are relative to the folder of the table; dataset.root=FOLDER names another "
            "one, dataset.extension=.jpg completes names without an extension"
        )


def _kind(path: str) -> str:
    return "a folder" if os.path.isdir(path) else "neither a file nor a folder"


def _endings(path: str) -> Iterable[str]:
    """Extensions with which `path` exists, the usual ones first."""
    usual = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG")
    for ending in (*usual, *sorted(image_extensions())):
        if os.path.isfile(path + ending):
            yield ending


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _folders_below(base: str) -> list[str]:
    """Folders in `base`, and in those: where the images may be."""
    found = [base]
    for level in (1, 2):
        for parent in [
            folder for folder in found if folder.count(os.sep) - base.count(os.sep) < level
        ]:
            with_names = (os.path.join(parent, name) for name in sorted(_names(parent))[:200])
            found += [path for path in with_names if os.path.isdir(path) and path not in found]
    return found[1:]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
