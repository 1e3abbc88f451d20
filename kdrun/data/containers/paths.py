"""Resolve the paths that a table or container lists, and keep them inside one folder."""

import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from kdrun.data.decoding.formats import image_extensions
from kdrun.data.paths import leaves
from kdrun.data.text import abbreviate
from kdrun.data.tree import changed_at
from kdrun.errors import DataError

REMOTE = ("http://", "https://", "s3://", "gs://", "hf://", "ftp://", "pipe:")


@dataclass(frozen=True)
class File:
    """An existing file. size: bytes. time: its `changed_at`."""

    path: str
    size: int
    time: int


@dataclass
class PathResolver:
    """Resolves listed paths to files below `root`.

    what: the file that lists them, for messages. extension: appended to every path. follow_links:
    allow paths and links that leave `root`.
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
        """The file at path `text`; None, and an entry in `missing`, if it does not exist.

        place: where the path is listed ("line 7"), for messages.

        Raises DataError for a URL, a path that leaves `root`, and anything but a regular file.
        """
        if text.lower().startswith(REMOTE):
            raise DataError(
                f"{self.what}, {place}: {text[:120]} is a URL: download the images and list "
                "their local paths."
            )
        if "\0" in text:
            raise DataError(f"{self.what}, {place}: the path contains a zero byte.")
        path = os.path.normpath(os.path.join(self._base, text + self.extension))
        if "\\" in text and os.sep == "/" and not os.path.lexists(path):
            path = os.path.normpath(
                os.path.join(self._base, text.replace("\\", "/") + self.extension)
            )
        real = self._real_path(path)
        if not self.follow_links and leaves(self._real, real):
            raise DataError(
                f"{self.what}, {place}: {text[:200]} leaves {self._base}, for {real}: set "
                f"dataset.root={os.path.dirname(real)} (or a parent folder of all images), or "
                "dataset.follow_links=true to allow it."
            )
        try:
            status = os.stat(real)
        except (OSError, ValueError):
            self.missing.append((place, path))
            return None
        if not S_ISREG(status.st_mode):
            kind = "a folder" if os.path.isdir(path) else "neither a file nor a folder"
            raise DataError(f"{self.what}, {place}: {path} is {kind}, not an image file.")
        return File(self._below(path, real), status.st_size, changed_at(status))

    def _real_path(self, path: str) -> str:
        """`os.path.realpath` that resolves each folder once."""
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._folders[folder], name)
        return os.path.realpath(real) if os.path.islink(real) else real

    def _below(self, path: str, real: str) -> str:
        """The path as listed if it starts with `root`, else its path below the real root."""
        if path.startswith(self._base + os.sep) or self.follow_links:
            return path
        return os.path.join(self._base, os.path.relpath(real, self._real))

    def check_missing(self, total: int) -> None:
        """Raise DataError with the likely cause if listed files do not exist."""
        if not self.missing:
            return
        shown = abbreviate([f"{place}: {path}" for place, path in self.missing], 3)
        raise DataError(
            f"{self.what}: {len(self.missing):,} of {total:,} listed files do not exist ({shown})"
            f"{self._advice()}."
        )

    def _advice(self) -> str:
        """A setting or a rename that resolves the first missing file."""
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
                return f": {entry!r} differs only in case or encoding; rename it"
        return (
            ": paths are relative to the folder of the table; dataset.root=FOLDER sets another "
            "one, dataset.extension=.jpg completes names without an extension"
        )


def _endings(path: str) -> Iterable[str]:
    """Extensions for which `path` exists, common ones first."""
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
    """Folders up to two levels below `base`."""
    folders: list[str] = []
    parents = [base]
    for _ in range(2):
        paths = [
            os.path.join(parent, n) for parent in parents for n in sorted(_names(parent))[:200]
        ]
        parents = [path for path in paths if os.path.isdir(path)]
        folders += parents
    return folders


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
