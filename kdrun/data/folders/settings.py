"""The settings that say where a split lies: `dataset.train_folder`, `val_folder`, `test_folder`.

A value is a folder that holds class folders, relative to the root or absolute. A `*` in it stands
for the class: `*/train` reads `root/<class>/train`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from kdrun.data.class_order import abbreviated
from kdrun.data.folders.folder import Folder, Links, Place, inside, shown
from kdrun.errors import ConfigError, DataError, did_you_mean

STAR = "*"


def setting(split: str, value: str) -> str:
    """`dataset.test_folder=value`, quoted where the shell or Hydra asks for it."""
    return typed(f"dataset.{split}_folder", value)


def typed(key: str, value: str) -> str:
    """`key=value`, quoted where the shell or Hydra asks for it."""
    word = f"{key}={value}"
    if all(char.isalnum() or char in "_./-=+" for char in word):
        return word
    if all(char.isalnum() or char in "_./-=+*@%" for char in word):
        return f"'{word}'"
    return f"""'{key}="{value}"'"""


def chosen_place(root: Folder, split: str, value: str) -> Place:
    """The place that a setting names; without a star, its classes are left open.

    Raises ConfigError for a value that is no path, DataError for a folder that is not there.
    """
    parts = Path(value).parts
    if not value.strip() or "\0" in value or parts.count(STAR) > 1:
        raise ConfigError(
            f"dataset.{split}_folder={value!r} must be a folder below dataset.root, or hold one "
            "'*' that stands for the class."
        )
    if any(STAR in part and part != STAR for part in parts):
        raise ConfigError(
            f"dataset.{split}_folder={value}: '*' stands for a whole class folder, as in */train."
        )
    if STAR not in parts:
        return Place(_folder(root, split, value, value), {})
    at = parts.index(STAR)
    base = _folder(root, split, os.path.join(".", *parts[:at]), value)
    classes = {}
    for folder in base.listing.folders:
        path = os.path.join(folder.path, *parts[at + 1 :])
        if os.path.isdir(path):
            classes[folder.name] = Folder(path, folder.links, os.path.islink(path))
    if not classes:
        raise DataError(f"dataset.{split}_folder={value} fits no folder below {base.path}.")
    return Place(base, classes)


def refuse_equal(places: Mapping[str, Place]) -> None:
    """Raise ConfigError when two settings name the same folders."""
    seen: dict[tuple[str, ...], str] = {}
    for split, place in places.items():
        paths = tuple(one.path for one in place.classes.values()) or (place.folder.path,)
        other = seen.setdefault(paths, split)
        if other != split:
            raise ConfigError(f"dataset.{other}_folder and dataset.{split}_folder name one folder.")


def _folder(root: Folder, split: str, value: str, whole: str) -> Folder:
    try:
        path = os.path.normpath(os.path.join(root.path, Path(value).expanduser()))
        there = os.path.isdir(path)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"dataset.{split}_folder={whole}: {error}.") from None
    if not there:
        names = [folder.name for folder in root.listing.folders]
        hint = did_you_mean(value, names)
        raise DataError(
            f"dataset.{split}_folder={whole}: {shown(path)} is no folder.{hint} {root.path} holds "
            f"{abbreviated([f'{name}/' for name in names], 10) or 'no folders'}."
        )
    if path == root.path:
        return root
    if inside(path, root.path):
        return Folder(path, root.links, os.path.islink(path))
    links = Links(Path(path), root.links.advice, root.links.follow)  # named, hence allowed
    return Folder(path, links)
