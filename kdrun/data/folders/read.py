"""Read an image folder: its splits, classes and images."""

import json
import os
from array import array
from collections.abc import Mapping
from pathlib import Path

from kdrun.data.class_order import NATURAL, ClassOrder, in_class_order, order_note
from kdrun.data.folders.folder import Collector, Files, Folder, Links, inside, relative, shown
from kdrun.data.folders.layout import Layout, find_layout
from kdrun.data.folders.listed import by_chosen_lists, by_found_lists, chosen_lists
from kdrun.data.folders.unread import Unread, why_empty
from kdrun.data.images import SPLITS
from kdrun.data.spelling import refuse_two_forms, spelling_notes
from kdrun.data.tree import FileList, PathList, Tree
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

    Lists near the images and file names may tell the splits instead (see `folders.listed`).

    folders: split → folder or list set by the user; None: read splits from folders only.
    class_order: see `in_class_order`.

    Raises DataError for a folder that is missing, ambiguous, or without images or classes; for a
    test or validation class without training images; and for a link that is broken, leaves the
    folder, or leads to a folder that was already read.
    """
    root = _checked_root(root, "dataset.root")
    links = Links(root, "to follow such links, set dataset.follow_links=true", follow_links)
    top = Folder(str(root), links)
    chosen = {split: value for split, value in (folders or {}).items() if value is not None}
    lists = chosen_lists(root, chosen)
    layout = find_layout(top, {split: chosen[split] for split in chosen if split not in lists})
    train = layout.places["train"]
    _check_names(train.classes)
    refuse_two_forms(train.classes, shown(train.folder.path))
    classes = in_class_order(train.classes, class_order)
    unread = Unread()
    files = _all_files(layout, unread)
    if len(classes) < 2:
        raise _too_few(train.folder, classes)
    _count_levels(layout, unread, str(root))
    splits = {split: _file_list(by_class, classes) for split, by_class in files.items()}
    told: tuple[dict[str, FileList], list[str]] = {}, []
    if lists:
        told = by_chosen_lists(splits["train"], train, classes, lists)
    elif folders is not None and "train" not in chosen and set(splits) == {"train"}:
        told = by_found_lists(splits["train"], layout, classes, root)
    notes = [*layout.notes, *told[1], *spelling_notes(classes, root.name)]
    notes += [*order_note(classes, class_order), *unread.notes()]
    skipped = [f"{relative(child, str(root))}/ ({child.count()})" for child in layout.unread()]
    if skipped:
        notes.append(f"Folders not read: {', '.join(skipped)}.")
    return Tree(
        _common_root(root, layout),
        classes,
        splits | told[0],
        _origin(chosen, classes, class_order),
        tuple(notes),
    )


def unlabelled_tree(folder: Path, where: str) -> Tree:
    """All images below `folder`, at any depth, as a tree of one nameless class.

    Raises DataError for a folder that is missing or has no images; `where` names the setting.
    """
    folder = _checked_root(folder, where)
    unread = Unread()
    links = Links(folder, "set its target instead, or copy it")
    files = Collector().images(Folder(str(folder), links), unread)
    if not files:
        raise DataError(f"{where}={folder} contains no images{why_empty(unread)}.")
    train = _file_list({"": files}, ("",))
    return Tree(folder, ("",), {"train": train}, notes=tuple(unread.notes()))


def _checked_root(root: Path, where: str) -> Path:
    """The absolute path of an existing folder. Raises DataError."""
    root = Path(root).absolute()
    try:
        os.stat(root)
        what = "" if root.is_dir() else "is a file, not a folder"
    except FileNotFoundError:
        what = "is a broken link" if root.is_symlink() else "does not exist"
    except (OSError, ValueError) as error:
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if what:
        raise DataError(
            f"{where}={shown(str(root))} {what}: give the folder that contains "
            + ("train/<class>/<image>, or <class>/<image>." if "root" in where else "images.")
        )
    return root


def _check_names(classes: Mapping[str, Folder]) -> None:
    """Raise DataError for a class name that is not UTF-8."""
    for name, folder in classes.items():
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"The name of the class folder {shown(folder.path)} is not UTF-8: rename it, e.g. "
                "with convmv."
            ) from None


def _all_files(layout: Layout, unread: Unread) -> dict[str, dict[str, Files]]:
    """Split → class → its images. Raises DataError for a class without training images."""
    collector = Collector()
    files: dict[str, dict[str, Files]] = {}
    for split in SPLITS:
        if split not in layout.places:
            continue
        by_class: dict[str, Files] = {}
        for name, folder in layout.places[split].classes.items():
            skipped = Unread()
            by_class[name] = collector.images(folder, skipped)
            unread.add(skipped.endings, skipped.hidden)
            if not by_class[name] and split == "train":
                raise DataError(
                    f"The class folder {shown(folder.path)} has no images{why_empty(skipped)}: add "
                    "some or remove it."
                )
        if any(by_class.values()):
            files[split] = by_class
    return files


def _count_levels(layout: Layout, unread: Unread, root: str) -> None:
    """Count unread files in the folders above the classes."""
    for level in layout.levels:
        unread.add(level.listing.endings, level.listing.hidden)
        if level.listing.images:
            unread.loose[f"{relative(level, root)}/"] += len(level.listing.images)


def _too_few(folder: Folder, classes: tuple[str, ...]) -> DataError:
    return DataError(
        f"{folder.path} contains {len(classes)} class folder{'' if len(classes) == 1 else 's'}; a "
        f"classifier needs at least two: {folder.path}/<class>/<image>."
    )


def _common_root(root: Path, layout: Layout) -> Path:
    """The root, or a folder above it that also contains splits set outside of it."""
    paths = [place.folder.path for place in layout.places.values()]
    outside = [path for path in paths if not inside(path, str(root))]
    return Path(os.path.commonpath([str(root), *outside])) if outside else root


def _origin(chosen: Mapping[str, str], classes: tuple[str, ...], order: ClassOrder) -> str:
    """Settings that distinguish the caches of one root; empty for the defaults."""
    if order == NATURAL and not chosen:
        return ""
    return json.dumps([dict(chosen), [] if order == NATURAL else classes], sort_keys=True)


def _file_list(by_class: Mapping[str, Files], classes: tuple[str, ...]) -> FileList:
    paths, targets, sizes, times = PathList(), array("q"), array("q"), array("q")
    for number, name in enumerate(classes):
        if (files := by_class.get(name)) is not None:
            paths.extend(files.paths)
            targets.extend([number] * len(files))
            sizes.extend(files.sizes)
            times.extend(files.times)
    return FileList(paths, targets, sizes, times)
