"""Refusing "classes" whose sub-folders show that they are splits, or that splits lie below them."""

from collections import Counter

from kdrun.data.chosen import setting
from kdrun.data.class_order import abbreviated, natural
from kdrun.data.folder_names import split_names
from kdrun.data.folders import Folder, Place, relative
from kdrun.errors import DataError


def refuse_shared(place: Place, root: str) -> None:
    """Raise DataError when several class folders have the same two or more sub-folders."""
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


def _refuse_splits_below(inner: dict[str, set[str]], place: Place, root: str) -> None:
    """`root/<class>/<split>`: nearly all sub-folders have names of splits."""
    every = Counter(name for names in inner.values() for name in names)
    named = split_names(list(every))
    splits = {named[name].split: name for name in sorted(named, key=lambda one: every[one])}
    if "train" in splits and len(splits) > 1 and sum(every[n] for n in named) > len(every) // 2:
        prefix = _prefix(place, root)
        settings = [setting(split, f"{prefix}*/{name}") for split, name in sorted(splits.items())]
        raise DataError(
            f"The class folders of {place.folder.path} hold the splits "
            f"({abbreviated(sorted(named))}): set {' '.join(reversed(settings))}, "
            f"where * stands for the class, or {setting('train', f'{prefix}*')} to mix them."
        )


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
