"""The files of an image folder: which splits, classes and images it holds."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from kdrun.data.class_order import NATURAL, ClassOrder, in_class_order, order_note
from kdrun.data.folders.folder import Collector, File, Folder, Links, inside, relative, shown
from kdrun.data.folders.layout import Layout, find_layout
from kdrun.data.folders.unread import Unread, why_empty
from kdrun.data.tree import FileList, Tree
from kdrun.errors import DataError


def read_tree(
    root: Path,
    follow_links: bool = False,
    *,
    folders: Mapping[str, str] | None = None,
    class_order: ClassOrder = NATURAL,
) -> Tree:
    """The images below `root`: `train/<class>/…` with `test/` or `val/`, or `<class>/…` alone.

    `kdrun.data.folders.layout` recognises other usual split names and skips wrapper folders. A
    validation split without a test split becomes the test split (the ImageNet convention). Images
    in sub-folders of a class belong to that class. Links within `root` are followed; links that
    leave it only with `follow_links`.

    folders: split → its folder, where the user names it. class_order: see `in_class_order`.

    Raises DataError for a folder that is missing, without images or classes, or can be read in two
    ways, for a class of the test or validation split that has no training images, and for a link
    that leads out of the folder, to nothing, or to a folder that is read already.
    """
    root = _checked_root(root, "dataset.root")
    links = Links(root, "to follow such links, set dataset.follow_links=true", follow_links)
    top = Folder(str(root), links)
    chosen = {split: value for split, value in (folders or {}).items() if value is not None}
    layout = find_layout(top, chosen)
    train = layout.places["train"]
    _check_names(train.classes)
    classes = in_class_order(train.classes, class_order)
    unread = Unread()
    files = _all_files(layout, unread)
    if len(classes) < 2:
        raise _too_few(train.folder, classes)
    _count_levels(layout, unread, str(root))
    notes = [*layout.notes, *order_note(classes, class_order), *unread.notes()]
    skipped = [f"{relative(one, str(root))}/ ({one.count()})" for one in layout.unread()]
    if skipped:
        notes.append(f"Folders not read: {', '.join(skipped)}.")
    return Tree(
        _common_root(root, layout),
        classes,
        {split: _listed(found, classes) for split, found in files.items()},
        _origin(chosen, classes, class_order),
        tuple(notes),
    )


def pictures_tree(folder: Path, where: str) -> Tree:
    """All pictures below `folder`, at any depth, as a tree of one nameless class.

    Raises DataError for a folder that is missing or holds none; `where` names the setting.
    """
    folder = _checked_root(folder, where)
    unread = Unread()
    links = Links(folder, "name that place itself, or copy it")
    files = Collector(unread).images(Folder(str(folder), links))
    if not files:
        raise DataError(f"{where}={folder} holds no pictures{why_empty(unread)}.")
    train = _listed({"": files}, ("",))
    return Tree(folder, ("",), {"train": train}, notes=tuple(unread.notes()))


def _checked_root(root: Path, where: str) -> Path:
    """The absolute path of an existing folder; DataError when there is none."""
    root = Path(root).absolute()
    try:
        os.stat(root)
        what = "" if root.is_dir() else "is a file, not a folder"
    except FileNotFoundError:
        what = "is a link to nothing" if root.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if what:
        raise DataError(
            f"{where}={shown(str(root))} {what}: give the folder that holds "
            + ("train/<class>/<image>, or <class>/<image>." if "root" in where else "pictures.")
        )
    return root


def _check_names(classes: Mapping[str, Folder]) -> None:
    """Raise DataError for a class whose name cannot be written down."""
    for name, folder in classes.items():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"The name of the class folder {shown(folder.path)} is not UTF-8: rename it, e.g. "
                "with convmv."
            ) from None


def _all_files(layout: Layout, unread: Unread) -> dict[str, dict[str, list[File]]]:
    """Split → class → its images; every class of the training split has some."""
    collector = Collector(unread)
    files: dict[str, dict[str, list[File]]] = {}
    for split in ("train", "val", "test"):
        if split not in layout.places:
            continue
        found: dict[str, list[File]] = {}
        for name, folder in layout.places[split].classes.items():
            own = Unread()
            collector.unread = own
            found[name] = collector.images(folder)
            unread.add(own.endings, own.hidden)
            if not found[name] and split == "train":
                raise DataError(
                    f"The class folder {shown(folder.path)} holds no images{why_empty(own)}: put "
                    "some there or remove it."
                )
        if any(found.values()):
            files[split] = found
    return files


def _count_levels(layout: Layout, unread: Unread, root: str) -> None:
    """Count what lies beside the folders that are read."""
    for level in layout.levels:
        unread.add(level.listing.endings, level.listing.hidden)
        if level.listing.images:
            unread.loose[f"{relative(level, root)}/"] += len(level.listing.images)


def _too_few(folder: Folder, classes: tuple[str, ...]) -> DataError:
    return DataError(
        f"{folder.path} holds {len(classes)} class folder{'' if len(classes) == 1 else 's'}; a "
        f"classifier needs at least two, each a folder of images: {folder.path}/<class>/<image>."
    )


def _common_root(root: Path, layout: Layout) -> Path:
    """The root, or the folder above it that also holds the splits named outside of it."""
    paths = [place.folder.path for place in layout.places.values()]
    outside = [path for path in paths if not inside(path, str(root))]
    return Path(os.path.commonpath([str(root), *outside])) if outside else root


def _origin(chosen: Mapping[str, str], classes: tuple[str, ...], order: ClassOrder) -> str:
    """What keeps the caches of one root apart; empty for the folder as it is."""
    if order == NATURAL and not chosen:
        return ""
    return json.dumps([dict(chosen), [] if order == NATURAL else classes], sort_keys=True)


def _listed(found: Mapping[str, list[File]], classes: tuple[str, ...]) -> FileList:
    rows = [(number, one) for number, name in enumerate(classes) for one in found.get(name, [])]
    return FileList(
        paths=[file[0] for _, file in rows],
        targets=[number for number, _ in rows],
        sizes=[file[1] for _, file in rows],
        times=[file[2] for _, file in rows],
    )
