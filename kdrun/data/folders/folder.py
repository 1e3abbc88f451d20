"""Folders of image files: listed once, in an order that no file system decides."""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from stat import S_ISREG

from kdrun.data.decoding.formats import image_extensions
from kdrun.data.folders.unread import PICTURES, Unread
from kdrun.errors import DataError

COUNT_LIMIT = 200_000  # files of a folder that is not read are counted up to here
File = tuple[str, int, int]  # path, bytes, time of change (ns)


class Links:
    """Which links are followed below a folder: those that stay in it, or all.

    advice: what to do about one that leads out of it.
    """

    def __init__(self, root: Path, advice: str, follow: bool = False) -> None:
        self.root = root
        self.real = os.path.realpath(root)
        self.advice = advice
        self.follow = follow

    def leads_out(self, path: str) -> bool:
        """Whether a link may not be followed."""
        if self.follow:
            return False
        try:
            return os.path.commonpath((self.real, os.path.realpath(path))) != self.real
        except ValueError:  # another drive
            return True

    def check(self, path: str) -> None:
        """Raise DataError for a link that leads out of the folder."""
        if self.leads_out(path):
            raise DataError(
                f"{shown(path)} is a link that leads out of {self.root}, to "
                f"{shown(os.path.realpath(path))}: {self.advice}."
            )


@dataclass
class Listing:
    """One folder's content, sorted by name.

    endings: other files by extension. hidden: hidden files and folders.
    """

    folders: list["Folder"] = field(default_factory=list)
    images: list[os.DirEntry[str]] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    hidden: int = 0


class Folder:
    """A folder whose content is listed when it is asked for. is_link: it is a symbolic link."""

    def __init__(self, path: str, links: Links, is_link: bool = False) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.links = links
        self.is_link = is_link

    @cached_property
    def listing(self) -> Listing:
        """What the folder holds. Raises DataError for one that cannot be read."""
        if self.is_link:
            self.links.check(self.path)
        found = Listing()
        for entry in _scan(self.path):
            if is_hidden(entry.name):
                found.hidden += 1
            elif _is_folder(entry):
                found.folders.append(Folder(entry.path, self.links, entry.is_symlink()))
            elif _ending(entry.name) in image_extensions():
                found.images.append(entry)
            else:
                found.endings[_ending(entry.name)] += 1
        return found

    @cached_property
    def bearing(self) -> bool:
        """Whether images lie in or below the folder, also of formats that are not read.

        A folder behind a link counts without being looked into.
        """
        if self.is_link and self.links.leads_out(self.path):
            return True
        return any(is_picture for _, is_picture in _below(self.path))

    @cached_property
    def inner(self) -> list["Folder"]:
        """The sub-folders that bear images."""
        return [folder for folder in self.listing.folders if folder.bearing]

    def count(self) -> str:
        """`1,234 images`: those in and below the folder; links are not followed."""
        if self.is_link:
            return "a link, not followed"
        number = 0
        for visited, is_picture in _below(self.path):
            number += is_picture
            if visited >= COUNT_LIMIT:
                return f"{number:,} images or more"
        return f"{number:,} image{'' if number == 1 else 's'}" if number else "no images"


class Collector:
    """Gathers the images below folders; no folder and its content is read twice."""

    def __init__(self, unread: Unread) -> None:
        self.unread = unread
        self._seen: dict[object, str] = {}

    def images(self, folder: Folder) -> list[File]:
        """The images in and below a folder, sorted by path.

        Raises DataError for what cannot be read, for a link that leads out, and for a folder that
        was read before, under another name.
        """
        files: list[File] = []
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            self._enter(here)
            listing = here.listing
            self.unread.add(listing.endings, listing.hidden)
            files += [_file(entry, here.links) for entry in listing.images]
            waiting += listing.folders
        return sorted(files, key=lambda file: (file[0].replace(os.sep, "/"), file))

    def _enter(self, folder: Folder) -> None:
        try:
            stat = os.stat(folder.path)
        except OSError as error:
            raise unreadable(folder.path, error) from None
        key = (stat.st_dev, stat.st_ino) if stat.st_ino else os.path.realpath(folder.path)
        if key in self._seen:
            raise DataError(
                f"{shown(folder.path)} and {shown(self._seen[key])} are one folder, which is read "
                "already: remove the link."
            )
        self._seen[key] = folder.path


def is_hidden(name: str) -> bool:
    """Whether a file or folder is passed over because of its name."""
    return name.startswith(".") or name == "__MACOSX"


def shown(path: str, length: int = 300) -> str:
    """A path for a message: printable, very long ones shortened in the middle."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 :]}"


def unreadable(path: str, error: OSError) -> DataError:
    """The error for a file or folder that the system does not open."""
    why = error.strerror or type(error).__name__
    if error.errno == errno.ENOENT and os.path.islink(path):
        why = "a link to nothing"
    return DataError(f"{shown(path)} cannot be read ({why}): repair, replace or remove it.")


def _scan(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise unreadable(path, error) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Raises DataError for a link to nothing or to itself: it may have been a class."""
    try:
        if not entry.is_dir():
            entry.stat()
            return False
    except OSError as error:
        raise unreadable(entry.path, error) from None
    return True


def _file(entry: os.DirEntry[str], links: Links) -> File:
    if entry.is_symlink():
        links.check(entry.path)
    try:
        stat = entry.stat()
    except OSError as error:
        raise unreadable(entry.path, error) from None
    if not S_ISREG(stat.st_mode):
        raise DataError(f"{shown(entry.path)} is neither a file nor a folder: remove it.")
    return entry.path, stat.st_size, stat.st_mtime_ns


def _below(path: str) -> Iterator[tuple[int, bool]]:
    """(files so far, whether this one is a picture) for the visible files below a folder.

    What cannot be read is passed over; a linked folder counts as one picture.
    """
    wanted = image_extensions() | PICTURES
    visited, waiting = 0, [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                        continue
                    visited += 1
                    linked = entry.is_symlink() and os.path.isdir(entry.path)
                    yield visited, linked or _ending(entry.name) in wanted
        except OSError:
            continue


def _ending(name: str) -> str:
    return os.path.splitext(name)[1].lower()


@dataclass
class Place:
    """Where one split lies: class name → its folder. folder: what holds them."""

    folder: Folder
    classes: dict[str, Folder]


def relative(folder: Folder, root: str) -> str:
    """A folder's path below `root`, or its whole path outside of it, for a message."""
    path = os.path.relpath(folder.path, root) if inside(folder.path, root) else folder.path
    return shown(path.replace(os.sep, "/"))


def inside(path: str, folder: str) -> bool:
    """Whether `path` is the folder or lies below it, by name."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
