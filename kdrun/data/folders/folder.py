"""Folders of image files, each listed once, in an order independent of the file system."""

import errno
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from stat import S_ISREG

from kdrun.data.decoding.formats import image_extensions
from kdrun.data.folders.unread import UNSUPPORTED_IMAGES, Unread
from kdrun.data.paths import leaves
from kdrun.data.tree import PathList, changed_at
from kdrun.errors import DataError

COUNT_LIMIT = 200_000  # stop counting files of an unused folder here
# What systems and network drives leave in folders: thumbnails of the images, deleted images.
SERVICE_FOLDERS = {
    *("__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
    *("$recycle.bin", "system volume information", "lost+found"),
}


@dataclass(frozen=True)
class Files:
    """Image files: paths, bytes, `changed_at`."""

    paths: PathList
    sizes: "array[int]"
    times: "array[int]"

    def __len__(self) -> int:
        return len(self.paths)


class Links:
    """Link policy below a folder: follow links that stay inside it, or all.

    advice: what to do about a link that leaves the folder.
    """

    def __init__(self, root: Path, advice: str, follow: bool = False) -> None:
        self.root = root
        self.real = os.path.realpath(root)
        self.advice = advice
        self.follow = follow

    def leads_out(self, path: str) -> bool:
        """Whether a link must not be followed."""
        return not self.follow and leaves(self.real, os.path.realpath(path))

    def check(self, path: str) -> None:
        """Raise DataError for a link that leaves the folder."""
        if self.leads_out(path):
            raise DataError(
                f"{shown(path)} is a link that leaves {self.root}, for "
                f"{shown(os.path.realpath(path))}: {self.advice}."
            )


@dataclass
class Listing:
    """The content of one folder, sorted by name.

    links: images that are links. endings: number of other files by extension. hidden: number of
    hidden files and folders.
    """

    folders: list["Folder"] = field(default_factory=list)
    links: set[str] = field(default_factory=set)
    endings: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    joined: str = ""  # names of the images with "/" between them: a fifth of the memory of a list

    @property
    def images(self) -> list[str]:
        """Names of the images."""
        return self.joined.split("/") if self.joined else []


class Folder:
    """A folder that is listed on first access. is_link: it is a symbolic link."""

    def __init__(self, path: str, links: Links, is_link: bool = False) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.links = links
        self.is_link = is_link

    @cached_property
    def listing(self) -> Listing:
        """Content of the folder. Raises DataError for an unreadable one."""
        if self.is_link:
            self.links.check(self.path)
        listing, extensions = Listing(), image_extensions()
        images: list[str] = []
        for entry in _scan(self.path):
            name = entry.name
            if is_hidden(name):
                listing.hidden += 1
            elif _is_folder(entry):
                listing.folders.append(Folder(entry.path, self.links, entry.is_symlink()))
            elif (ending := _ending(name)) in extensions:
                images.append(name)
                if entry.is_symlink():
                    listing.links.add(name)
            else:
                listing.endings[ending] += 1
        listing.joined = "/".join(images)
        return listing

    def forget(self) -> None:
        """Free the listing; the next access lists the folder again."""
        self.__dict__.pop("listing", None)

    @cached_property
    def has_images(self) -> bool:
        """Whether the folder or a sub-folder contains images, including unsupported formats.

        True for a link that must not be followed.
        """
        if self.is_link and self.links.leads_out(self.path):
            return True
        return any(is_image for _, is_image in _below(self.path))

    @cached_property
    def subfolders(self) -> list["Folder"]:
        """Sub-folders with images."""
        return [folder for folder in self.listing.folders if folder.has_images]

    def count(self) -> str:
        """`1,234 images` in and below the folder, without following links."""
        if self.is_link:
            return "a link, not followed"
        number = 0
        for visited, is_image in _below(self.path):
            number += is_image
            if visited >= COUNT_LIMIT:
                return f"{number:,} images or more"
        return f"{number:,} image{'' if number == 1 else 's'}" if number else "no images"


class Collector:
    """Collects images below folders and refuses to read a folder twice."""

    def __init__(self) -> None:
        self._seen: dict[object, str] = {}

    def images(self, folder: Folder, unread: Unread) -> Files:
        """The images in and below a folder, sorted by path; counts the other files in `unread`.

        Raises DataError for unreadable entries, links that leave the folder, and a folder that was
        already read under another name.
        """
        rows: list[tuple[str, int, int]] = []
        pending = [folder]
        while pending:
            current = pending.pop()
            self._enter(current)
            listing = current.listing
            unread.add(listing.endings, listing.hidden)
            rows += _images_in(current)
            pending += listing.folders
            current.forget()
        rows.sort(key=lambda row: row[0].replace(os.sep, "/"))
        return Files(
            PathList(path for path, _, _ in rows),
            array("q", (size for _, size, _ in rows)),
            array("q", (time for _, _, time in rows)),
        )

    def _enter(self, folder: Folder) -> None:
        try:
            stat = os.stat(folder.path)
        except OSError as error:
            raise unreadable(folder.path, error) from None
        key = (stat.st_dev, stat.st_ino) if stat.st_ino else os.path.realpath(folder.path)
        if key in self._seen:
            raise DataError(
                f"{shown(folder.path)} and {shown(self._seen[key])} are the same folder: remove "
                "the link."
            )
        self._seen[key] = folder.path


def is_hidden(name: str) -> bool:
    """Whether a file or folder is skipped because of its name."""
    return name.startswith(".") or name.casefold() in SERVICE_FOLDERS


def shown(path: str, length: int = 300) -> str:
    """A printable path for messages, shortened in the middle if very long."""
    text = path.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 :]}"


def unreadable(path: str, error: OSError) -> DataError:
    """The error for a file or folder that the system cannot open."""
    reason = error.strerror or type(error).__name__
    if error.errno == errno.ENOENT and os.path.islink(path):
        reason = "a broken link"
    return DataError(f"{shown(path)} cannot be read ({reason}): repair, replace or remove it.")


def _scan(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=attrgetter("name"))
    except OSError as error:
        raise unreadable(path, error) from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Raises DataError for a broken or circular link: it may have been a class."""
    try:
        if not entry.is_dir():
            if entry.is_symlink():
                entry.stat()
            return False
    except OSError as error:
        raise unreadable(entry.path, error) from None
    return True


def _images_in(folder: Folder) -> Iterator[tuple[str, int, int]]:
    """(path, bytes, `changed_at`) of each image directly in a folder."""
    prefix, links = os.path.join(folder.path, ""), folder.listing.links
    for name in folder.listing.images:
        path = prefix + name
        if name in links:
            folder.links.check(path)
        try:
            stat = os.stat(path)  # a DirEntry would keep the result: 600 bytes per file
        except OSError as error:
            raise unreadable(path, error) from None
        if not S_ISREG(stat.st_mode):
            raise DataError(f"{shown(path)} is neither a file nor a folder: remove it.")
        yield path, stat.st_size, changed_at(stat)


def _below(path: str) -> Iterator[tuple[int, bool]]:
    """(number of files so far, whether this one is an image) for visible files below a folder.

    Skips unreadable entries. A linked folder counts as one image.
    """
    extensions = image_extensions() | UNSUPPORTED_IMAGES
    visited, pending = 0, [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                        continue
                    visited += 1
                    linked = entry.is_symlink() and os.path.isdir(entry.path)
                    yield visited, linked or _ending(entry.name) in extensions
        except OSError:
            continue


def _ending(name: str) -> str:
    """As `os.path.splitext(name)[1].lower()` for a name that does not start with a dot."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


@dataclass
class Place:
    """Location of a split. classes: class name → its folder. folder: their parent."""

    folder: Folder
    classes: dict[str, Folder]


def relative(folder: Folder, root: str) -> str:
    """Path of a folder for messages: relative to `root` if inside it, else absolute."""
    path = os.path.relpath(folder.path, root) if inside(folder.path, root) else folder.path
    return shown(path.replace(os.sep, "/"))


def inside(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies below it, by name only."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
