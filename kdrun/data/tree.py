"""The files of an image folder: which splits, classes and images it holds."""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from stat import S_ISREG

from kdrun.data.class_order import natural
from kdrun.data.members import Source
from kdrun.errors import DataError

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# Formats that Pillow lists but reads through other programs, or not at all.
NOT_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}


@dataclass(frozen=True)
class FileList:
    """The images of one split: files, or members of container files.

    sizes: bytes of each image. times: when its file was last changed (ns).
    """

    paths: list[Source]
    targets: list[int]
    sizes: list[int]
    times: list[int]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Tree:
    """Images on disk: class names in the order of their numbers, and the images of each split.

    root: every image lies below it. origin: what else names the data set, where several share a
    root (a table's file name); it keeps their caches apart.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, FileList]
    origin: str = ""

    def digest(self, *, times: bool = True, form: str = "") -> str:
        """sha256 over the names, classes and sizes of all files, and the times of their changes.

        `form` adds how they are decoded.
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


@cache
def readable_formats() -> tuple[str, ...]:
    """The formats Pillow can read by itself, without another program."""
    from PIL import Image

    Image.init()
    return tuple(sorted(set(Image.OPEN) - NOT_PICTURES))


@cache
def image_extensions() -> frozenset[str]:
    """Endings, such as `.png`, of the formats Pillow can read by itself."""
    from PIL import Image

    found = Image.registered_extensions()
    return frozenset(ending for ending, name in found.items() if name in readable_formats())


class Links:
    """Which links are followed below a folder: those that stay in it, or all.

    advice: what to do about one that leads out of it.
    """

    def __init__(self, root: Path, advice: str, follow: bool = False) -> None:
        self.root = root
        self.real = os.path.realpath(root)
        self.advice = advice
        self.follow = follow

    def check(self, entry: os.DirEntry[str]) -> None:
        """Raise DataError for a link that leads out of the folder."""
        if self.follow or not entry.is_symlink():
            return
        target = os.path.realpath(entry.path)
        if os.path.commonpath((self.real, target)) != self.real:
            raise DataError(
                f"{entry.path} is a link that leads out of {self.root}, to {target}: {self.advice}."
            )


def read_tree(root: Path, follow_links: bool = False) -> Tree:
    """The images below `root`: `train/<class>/…` with `test/` or `val/`, or `<class>/…` alone.

    `val/` (also `valid/`, `validation/`) without `test/` is the test split, the convention of
    ImageNet. Folders below a class belong to it; hidden files and other endings are passed over.
    Links within `root` are followed, and with `follow_links` those that lead out of it. Classes are
    sorted by name, numbers in names by value.

    Raises DataError for a folder that is missing, without images or classes, with classes that
    differ between splits, or with a link that leads out of it or in a circle.
    """
    root = Path(root).absolute()
    links = Links(root, "to follow such links, set dataset.follow_links=true", follow_links)
    folders = _split_folders(root, links)
    files = {name: _class_files(folder, links) for name, folder in folders.items()}
    if "val" in files and "test" not in files:
        files["test"] = files.pop("val")
        folders["test"] = folders.pop("val")
    classes = sorted(files["train"], key=natural)
    if len(classes) < 2:
        raise DataError(
            f"{folders['train']} holds {len(classes)} class folder"
            f"{'' if len(classes) == 1 else 's'}; a classifier needs at least two, each a folder "
            f"of images: {folders['train']}/<class>/<image>."
        )
    for name, found in files.items():
        _check_classes(folders[name], set(found), folders["train"], set(classes))
    order = [name for name in ("train", "val", "test") if name in files]
    return Tree(root, tuple(classes), {name: _listed(files[name], classes) for name in order})


def pictures_tree(folder: Path, where: str) -> Tree:
    """All pictures below `folder`, at any depth, as a tree of one nameless class.

    Raises DataError for a folder that is missing or holds none; `where` names the setting.
    """
    folder = Path(folder).absolute()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{where}={folder} {what}: give a folder of pictures.")
    files: list[File] = []
    _collect(str(folder), files, Links(folder, "name that place itself, or copy it"), set())
    if not files:
        raise DataError(f"{where}={folder} holds no pictures.")
    return Tree(folder, ("",), {"train": _listed({"": sorted(files)}, [""])})


def _split_folders(root: Path, links: Links) -> dict[str, Path]:
    """Split name → its folder; a single tree is all `train`."""
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(
            f"dataset.root={root} {what}: give the folder that holds train/<class>/<image>, or "
            "<class>/<image>."
        )
    inside = {entry.name: Path(entry.path) for entry in _folders(root, links)}
    named = {name: path for name, path in inside.items() if name.lower() in SPLIT_FOLDERS}
    found: dict[str, Path] = {}
    for name, path in sorted(named.items()):
        split = SPLIT_FOLDERS[name.lower()]
        if split in found:
            raise DataError(
                f"{root} holds both {found[split].name}/ and {name}/: keep one of them."
            )
        found[split] = path
    if "train" in found and _folders(found["train"], links):
        return found
    if inside and len(named) == len(inside):
        missing = "train/ holds no class folders" if "train" in found else "there is no train/"
        raise DataError(
            f"{root}: {missing} beside {', '.join(f'{name}/' for name in sorted(named))}; "
            "expected train/<class>/<image>."
        )
    return {"train": root}


def _folders(folder: Path, links: Links) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not _hidden(entry.name) and entry.is_dir()]
    for entry in found:
        links.check(entry)
    return found


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


File = tuple[str, int, int]  # path, bytes, time of change


def _class_files(folder: Path, links: Links) -> dict[str, list[File]]:
    """Class name → its images, sorted by path."""
    found = {}
    for entry in _folders(folder, links):
        files: list[File] = []
        _collect(entry.path, files, links, set())
        if not files:
            raise DataError(
                f"The class folder {entry.path} holds no images: put some there or remove it."
            )
        found[entry.name] = sorted(files)
    return found


def _collect(folder: str, files: list[File], links: Links, seen: set[tuple[int, int]]) -> None:
    """Add the images in and below `folder`. seen: the folders that were entered so far."""
    endings = image_extensions()
    own = os.stat(folder)
    if (own.st_dev, own.st_ino) in seen:
        raise DataError(f"{folder} leads to a folder that is read already: remove the link.")
    seen.add((own.st_dev, own.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if _hidden(entry.name):
                continue
            links.check(entry)
            if entry.is_dir():
                _collect(entry.path, files, links, seen)
            elif os.path.splitext(entry.name)[1].lower() in endings:
                try:
                    stat = entry.stat()
                except OSError:
                    raise DataError(
                        f"{entry.path} cannot be read (a link to nothing?): remove or replace it."
                    ) from None
                if not S_ISREG(stat.st_mode):
                    raise DataError(f"{entry.path} is neither a file nor a folder: remove it.")
                files.append((entry.path, stat.st_size, stat.st_mtime_ns))


def _check_classes(folder: Path, found: set[str], train: Path, expected: set[str]) -> None:
    for here, there, names in (
        (folder, train, sorted(found - expected, key=natural)),
        (train, folder, sorted(expected - found, key=natural)),
    ):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" * (len(names) > 5))
            raise DataError(
                f"{here} has classes that {there} has not: {shown}. Every split needs the same "
                "class folders."
            )


def _listed(found: dict[str, list[File]], classes: list[str]) -> FileList:
    rows = [(number, file) for number, name in enumerate(classes) for file in found[name]]
    return FileList(
        paths=[file[0] for _, file in rows],
        targets=[number for number, _ in rows],
        sizes=[file[1] for _, file in rows],
        times=[file[2] for _, file in rows],
    )
