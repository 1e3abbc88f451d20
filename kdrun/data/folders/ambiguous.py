"""Refuse "classes" whose sub-folders suggest that they are splits, or contain splits."""

from collections import Counter

from kdrun.data.class_order import natural
from kdrun.data.folders.folder import Folder, Place, relative
from kdrun.data.folders.settings import assignment, setting
from kdrun.data.folders.split_names import PARTS, SPLIT_OF, split_names
from kdrun.data.text import abbreviate
from kdrun.errors import DataError

# Folders of images and of what is drawn for each of them, as for segmentation.
IMAGES = {"image", "images", "img", "imgs", "jpegimages", "leftimgbit", "rgb", "photos", "pictures"}
UNLABELLED = {"unlabeled", "unlabelled", "unsorted", "nan"}
DRAWN = {
    *("mask", "masks", "annotation", "annotations", "label", "labels", "gt", "gtfine", "seg"),
    *("groundtruth", "groundtruths", "segmentation", "segmentations", "segmentationclass"),
    *("segmentationobject", "trimap", "trimaps", "depth", "heatmaps", "boundaries", "edges"),
}


def refuse_annotations(place: Place, root: str) -> None:
    """Raise DataError for `images/` next to `masks/`, which are no classes."""
    kinds = {name: _without_split(name) for name in place.classes}
    images = [name for name, kind in kinds.items() if kind in IMAGES]
    drawn = [name for name, kind in kinds.items() if kind in DRAWN]
    if images and drawn and len(images) + len(drawn) == len(kinds):
        path = f"{_prefix(place, root)}{images[0]}"
        inner = f"{setting('train', path)} reads it, "
        raise DataError(
            f"{place.folder.path}: {abbreviate([f'{name}/' for name in drawn])} is next to "
            f"{images[0]}/, as for segmentation or detection: these are no classes, and kdrun "
            "needs a folder for each class. "
            f"{inner if _inner_names(place.classes[images[0]]) else ''}"
            f"{setting('train', f'{_prefix(place, root)}*')} takes them as classes."
        )


def refuse_unlabelled(place: Place, root: str) -> None:
    """Raise DataError for a "class" of images without a label."""
    for name in place.classes:
        if name.lower() in UNLABELLED:
            raise DataError(
                f"{place.classes[name].path} seems to hold images without a label, next to the "
                f"classes: move it away; {setting('train', f'{_prefix(place, root)}*')} takes it "
                "as a class."
            )


def _without_split(name: str) -> str:
    """`masks` of `train_masks`."""
    words = [word.lower() for word in PARTS.findall(name)]
    return "".join(word for word in words if word not in SPLIT_OF and not word.isdecimal())


def refuse_shared(place: Place, root: str) -> None:
    """Raise DataError if several class folders share two or more sub-folder names.

    One sub-folder named like a split suffices if the class folder also contains images. Also raise
    it for a class folder that holds the other classes, as a copy of them does.
    """
    _refuse_splits_beside_images(place, root)
    inner = {name: _inner_names(folder) for name, folder in place.classes.items()}
    _refuse_copies(inner, place, root)
    classes = [name for name, names in inner.items() if names]
    if classes:
        _refuse_splits_below({name: inner[name] for name in classes}, place, root)
    counts = Counter(name for names in inner.values() for name in names)
    for shared, count in counts.items():
        if count < 2:
            continue
        owners = [name for name in classes if shared in inner[name]]
        siblings = Counter(name for owner in owners for name in inner[owner])
        names = sorted((name for name, number in siblings.items() if number > 1), key=natural)
        for second in names:
            both = sorted((owner for owner in owners if second in inner[owner]), key=natural)
            if second != shared and len(both) > 1:
                raise _may_be_splits(place, root, both, sorted({shared, second}, key=natural))


def _refuse_copies(inner: dict[str, set[str]], place: Place, root: str) -> None:
    """Refuse `root/backup/<class>` next to `root/<class>`."""
    for name, names in inner.items():
        if len(names) > 1 and names <= set(inner) - {name}:
            raise DataError(
                f"{place.classes[name].path} holds folders named like the classes next to it "
                f"({abbreviate(sorted(names, key=natural))}): move it away if it is a copy of "
                f"them, or set {setting('train', f'{_prefix(place, root)}*')} if it is a class."
            )


def _refuse_splits_beside_images(place: Place, root: str) -> None:
    """Refuse `root/<class>/1.jpg` next to `root/<class>/test/2.jpg` in two classes or more."""
    counts: Counter[str] = Counter()
    for folder in place.classes.values():
        if folder.listing.images:
            counts.update(list(split_names([child.name for child in folder.subfolders])))
    names = sorted(name for name, count in counts.items() if count > 1)
    if names:
        inside = abbreviate([f"{name}/" for name in names])
        raise DataError(
            f"The class folders of {place.folder.path} contain images and {inside}, "
            f"{'names of splits' if len(names) > 1 else 'the name of a split'}: move the images "
            "of each class to <class>/train/, or set "
            f"{setting('train', f'{_prefix(place, root)}*')} to mix them."
        )


def _refuse_splits_below(inner: dict[str, set[str]], place: Place, root: str) -> None:
    """Refuse `root/<class>/<split>`: most sub-folders have names of splits."""
    counts = Counter(name for names in inner.values() for name in names)
    named = split_names(list(counts))
    splits = {named[name].split: name for name in sorted(named, key=lambda name: counts[name])}
    unnamed = [name for name in counts if name not in named]
    if splits and "train" not in splits and len(unnamed) == 1 and counts[unnamed[0]] > 1:
        splits["train"] = unnamed[0]  # <class>/images next to <class>/test
    elif "train" not in splits or sum(counts[n] for n in named) <= len(counts) // 2:
        return
    if len(splits) == 1:
        return
    prefix = _prefix(place, root)
    settings = [setting(split, f"{prefix}*/{name}") for split, name in sorted(splits.items())]
    overrides = " ".join(reversed(settings))
    data_sets = _complete_data_sets(place, set(splits.values()))
    if data_sets:
        raise DataError(
            f"{place.folder.path}: {abbreviate([f'{name}/' for name in data_sets])} "
            f"{'contain' if len(data_sets) > 1 else 'contains'} splits with class folders, so it "
            "may be a data set or a fold rather than a class: choose one, e.g. "
            f"{assignment('dataset.root', place.classes[data_sets[0]].path)}, or set {overrides} "
            "if they are the classes."
        )
    raise DataError(
        f"The class folders of {place.folder.path} contain the splits "
        f"({abbreviate(sorted(splits.values()))}): set {overrides}, "
        f"where * stands for the class, or {setting('train', f'{prefix}*')} to mix them."
    )


def _complete_data_sets(place: Place, splits: set[str]) -> list[str]:
    """The "classes" with two splits that share two or more sub-folders: data sets or folds."""
    data_sets = []
    for name, folder in place.classes.items():
        below = [_inner_names(child) for child in folder.subfolders if child.name in splits]
        counts = Counter(inner for names in below for inner in names)
        if sum(count > 1 for count in counts.values()) > 1:
            data_sets.append(name)
    return sorted(data_sets, key=natural)


def _may_be_splits(place: Place, root: str, both: list[str], shared: list[str]) -> DataError:
    first, second = (relative(place.classes[name], root) for name in both[:2])
    return DataError(
        f"{place.folder.path}: {abbreviate([f'{name}/' for name in both])} have the same "
        f"sub-folders ({', '.join(shared)}, ...), so they may be splits: name them, e.g. "
        f"{setting('train', first)} {setting('test', second)}, or set "
        f"{setting('train', f'{_prefix(place, root)}*')} if they are the classes."
    )


def _inner_names(folder: Folder) -> set[str]:
    """Names of the sub-folders with images, below any wrapper folders."""
    for _ in range(40):
        if folder.listing.images or not folder.subfolders:
            return set()
        if len(folder.subfolders) > 1 or split_names([folder.subfolders[0].name]):
            break
        folder = folder.subfolders[0]
    return {child.name for child in folder.subfolders}


def _prefix(place: Place, root: str) -> str:
    path = relative(place.folder, root)
    return "" if path == "." else f"{path}/"
