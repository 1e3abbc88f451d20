"""Refusing "classes" whose sub-folders show that they are splits, or that splits lie below them."""

from collections import Counter

from kdrun.data.class_order import abbreviated, natural
from kdrun.data.folders.folder import Folder, Place, relative
from kdrun.data.folders.settings import setting, typed
from kdrun.data.folders.split_names import split_names
from kdrun.errors import DataError


def refuse_shared(place: Place, root: str) -> None:
    """Raise DataError when several class folders have the same two or more sub-folders.

    A sub-folder named like a split is enough where images lie beside it.
    """
    _refuse_splits_beside_images(place, root)
    inner = {name: _inner_names(folder) for name, folder in place.classes.items()}
    classes = [name for name, names in inner.items() if names]
    if len(classes) < 2:
        return
    _refuse_splits_below({name: inner[name] for name in classes}, place, root)
    counts = Counter(name for names in inner.values() for name in names)
    for shared, count in counts.items():
        if count < 2:
            continue
        having = [name for name in classes if shared in inner[name]]
        beside = Counter(name for one in having for name in inner[one])
        names = sorted((name for name, number in beside.items() if number > 1), key=natural)
        for other in names:
            both = sorted((one for one in having if other in inner[one]), key=natural)
            if other != shared and len(both) > 1:
                raise _may_be_splits(place, root, both, sorted({shared, other}, key=natural))


def _refuse_splits_beside_images(place: Place, root: str) -> None:
    """`root/<class>/1.jpg` beside `root/<class>/test/2.jpg`, in two classes or more."""
    found: Counter[str] = Counter()
    for folder in place.classes.values():
        if folder.listing.images:
            found.update(list(split_names([one.name for one in folder.inner])))
    names = sorted(name for name, count in found.items() if count > 1)
    if names:
        inside = abbreviated([f"{name}/" for name in names])
        raise DataError(
            f"The class folders of {place.folder.path} hold images and {inside}, "
            f"{'names of splits' if len(names) > 1 else 'the name of a split'}: move the images "
            "of each class to <class>/train/, or set "
            f"{setting('train', f'{_prefix(place, root)}*')} to mix them."
        )


def _refuse_splits_below(inner: dict[str, set[str]], place: Place, root: str) -> None:
    """`root/<class>/<split>`: nearly all sub-folders have names of splits."""
    every = Counter(name for names in inner.values() for name in names)
    named = split_names(list(every))
    splits = {named[name].split: name for name in sorted(named, key=lambda one: every[one])}
    others = [name for name in every if name not in named]
    if splits and "train" not in splits and len(others) == 1 and every[others[0]] > 1:
        splits["train"] = others[0]  # <class>/images beside <class>/test
    elif "train" not in splits or sum(every[n] for n in named) <= len(every) // 2:
        return
    if len(splits) == 1:
        return
    prefix = _prefix(place, root)
    settings = [setting(split, f"{prefix}*/{name}") for split, name in sorted(splits.items())]
    words = " ".join(reversed(settings))
    whole = _whole_data_sets(place, set(splits.values()))
    if whole:
        raise DataError(
            f"{place.folder.path}: {abbreviated([f'{name}/' for name in whole])} "
            f"{'hold' if len(whole) > 1 else 'holds'} splits with class folders of their own, so "
            "it may be a data set or a fold rather than a class: name one, e.g. "
            f"{typed('dataset.root', place.classes[whole[0]].path)}, or set {words} if they are "
            "the classes."
        )
    raise DataError(
        f"The class folders of {place.folder.path} hold the splits "
        f"({abbreviated(sorted(splits.values()))}): set {words}, "
        f"where * stands for the class, or {setting('train', f'{prefix}*')} to mix them."
    )


def _whole_data_sets(place: Place, splits: set[str]) -> list[str]:
    """The "classes" with two splits that share two or more sub-folders: data sets or folds."""
    found = []
    for name, folder in place.classes.items():
        below = [_inner_names(one) for one in folder.inner if one.name in splits]
        counts = Counter(inner for names in below for inner in names)
        if sum(count > 1 for count in counts.values()) > 1:
            found.append(name)
    return sorted(found, key=natural)


def _may_be_splits(place: Place, root: str, both: list[str], shared: list[str]) -> DataError:
    first, second = (relative(place.classes[name], root) for name in both[:2])
    return DataError(
        f"{place.folder.path}: {abbreviated([f'{name}/' for name in both])} have the same "
        f"sub-folders ({', '.join(shared)}, ...), so they may be splits: name them, e.g. "
        f"{setting('train', first)} {setting('test', second)}, or set "
        f"{setting('train', f'{_prefix(place, root)}*')} if they are the classes."
    )


def _inner_names(folder: Folder) -> set[str]:
    """Names of the sub-folders with images, below folders that only wrap another one."""
    for _ in range(40):
        if folder.listing.images or not folder.inner:
            return set()
        if len(folder.inner) > 1:
            break
        if split_names([folder.inner[0].name]):
            break
        folder = folder.inner[0]
    return {one.name for one in folder.inner}


def _prefix(place: Place, root: str) -> str:
    path = relative(place.folder, root)
    return "" if path == "." else f"{path}/"
