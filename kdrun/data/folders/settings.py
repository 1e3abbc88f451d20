"""Folders of splits set by the user: `dataset.train_folder`, `val_folder`, `test_folder`.

A value is a folder of class folders, relative to the root or absolute. A `*` stands for the class:
`*/train` reads `root/<class>/train`.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from kdrun.data.folders.folder import Folder, Links, Place, inside, shown
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, DataError, did_you_mean

STAR = "*"


def setting(split: str, value: str) -> str:
    """`dataset.test_folder=value`, quoted if the shell or Hydra needs it."""
    return assignment(f"dataset.{split}_folder", value)


def assignment(key: str, value: str) -> str:
    """`key=value`, quoted if the shell or Hydra needs it."""
    text = f"{key}={value}"
    if all(char.isalnum() or char in "_./-=+" for char in text):
        return text
    if all(char.isalnum() or char in "_./-=+*@%" for char in text):
        return f"'{text}'"
    return f"""'{key}="{value}"'"""


def chosen_place(root: Folder, split: str, value: str) -> Place:
    """The place that a setting names; without a star, its classes stay empty.

    Raises ConfigError for an invalid value, DataError for a missing folder.
    """
    parts = Path(value).parts
    if not value.strip() or "\0" in value or parts.count(STAR) > 1:
        raise ConfigError(
            f"dataset.{split}_folder={value!r} must be a folder below dataset.root, or contain "
            "one '*' that stands for the class."
        )
    if any(STAR in part and part != STAR for part in parts):
        raise ConfigError(
            f"dataset.{split}_folder={value}: '*' stands for a whole class folder, as in */train."
        )
    if STAR not in parts:
        return Place(_folder(root, split, value, value), {})
    star = parts.index(STAR)
    base = _folder(root, split, os.path.join(".", *parts[:star]), value)
    classes = {}
    for folder in base.listing.folders:
        path = os.path.join(folder.path, *parts[star + 1 :])
        if os.path.isdir(path):
            classes[folder.name] = Folder(path, folder.links, os.path.islink(path))
    if not classes:
        raise DataError(f"dataset.{split}_folder={value} matches no folder below {base.path}.")
    return Place(base, classes)


def refuse_equal(places: Mapping[str, Place]) -> None:
    """Raise ConfigError if two settings name the same folders."""
    first: dict[tuple[str, ...], str] = {}
    for split, place in places.items():
        paths = tuple(folder.path for folder in place.classes.values()) or (place.folder.path,)
        if (previous := first.setdefault(paths, split)) != split:
            raise ConfigError(
                f"dataset.{previous}_folder and dataset.{split}_folder name the same folder."
            )


def _folder(root: Folder, split: str, value: str, whole: str) -> Folder:
    try:
        path = os.path.normpath(os.path.join(root.path, Path(value).expanduser()))
        exists = os.path.isdir(path)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"dataset.{split}_folder={whole}: {error}.") from None
    if not exists:
        names = [folder.name for folder in root.listing.folders]
        hint = did_you_mean(value, names)
        raise DataError(
            f"dataset.{split}_folder={whole}: {shown(path)} is not a folder.{hint} {root.path} "
            f"contains {abbreviate([f'{name}/' for name in names], 10) or 'no folders'}."
        )
    if path == root.path:
        return root
    if inside(path, root.path):
        return Folder(path, root.links, os.path.islink(path))
    links = Links(
        Path(path), root.links.advice, root.links.follow
    )  # named by the user, hence allowed
    return Folder(path, links)
