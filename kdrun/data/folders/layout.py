"""Find the splits and classes of an image folder.

Known layouts are recognised. Ambiguous ones raise an error that names the settings to resolve it.
"""

import os
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kdrun.data.class_order import natural
from kdrun.data.folders.ambiguous import refuse_annotations, refuse_shared, refuse_unlabelled
from kdrun.data.folders.folder import Folder, Place, inside, relative, shown
from kdrun.data.folders.settings import STAR, chosen_place, refuse_equal, setting
from kdrun.data.folders.split_names import SPLIT_OF, split_name, split_names
from kdrun.data.folders.unlabelled import no_class_folders
from kdrun.data.spelling import refuse_two_forms
from kdrun.data.text import abbreviate
from kdrun.errors import DataError, did_you_mean

# Names of a split's only sub-folder that are not class names.
NOT_CLASSES = {
    *("all", "data", "files", "image", "images", "img", "imgs", "jpeg", "jpg", "photos", "pics"),
    *("pictures", "png", "unknown", "unlabeled", "unlabelled", "unsorted"),
}
# Names of folders without images next to the classes.
METADATA = {
    *("meta", "metadata", "label", "labels", "split", "splits", "list", "lists", "annotation"),
    *("annotations", "imagesets", "partitions", "imdb", "docs"),
}


@dataclass
class Layout:
    """Location of the splits.

    levels: folders whose sub-folders are splits or classes; their other content is not read.
    notes: assumptions, one sentence each.
    """

    places: dict[str, Place] = field(default_factory=dict)
    levels: list[Folder] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def unread(self) -> list[Folder]:
        """Folders in `levels` that are not read."""
        used: set[str] = set()  # folders that are read, and all their parents
        for place in self.places.values():
            for path in (place.folder.path, *(folder.path for folder in place.classes.values())):
                while path not in used:
                    used.add(path)
                    path = os.path.dirname(path)
        return [
            folder
            for level in self.levels
            for folder in level.listing.folders
            if folder.path not in used
        ]


def find_layout(root: Folder, chosen: Mapping[str, str]) -> Layout:
    """The layout below `root`. chosen: split → value of `dataset.<split>_folder`.

    Raises DataError for ambiguous folders or missing classes, ConfigError for a setting that names
    no folder.
    """
    layout = Layout()
    top = _enter(root, layout, lambda child: split_name(child.name) is None)
    if top is not root:
        layout.notes.append(f"Read from {relative(top, root.path)}/, the only folder with images.")
    places = {split: chosen_place(root, split, value) for split, value in chosen.items()}
    refuse_equal(places)
    stars = {split for split, value in chosen.items() if STAR in value}
    finder = _Finder(root.path, top, places, layout, recognise="train" not in stars)
    if "train" not in places:
        places["train"] = finder.train()
    elif "train" not in stars:
        places["train"] = finder.with_classes(places["train"].folder)
        if not places["train"].classes:
            raise no_class_folders(places["train"].folder)
    if "train" not in stars:
        refuse_annotations(places["train"], root.path)
        refuse_unlabelled(places["train"], root.path)
        refuse_shared(places["train"], root.path)
    for split in ("val", "test"):
        if split in stars:
            continue
        place = finder.held_out(split, places.pop(split, None), places["train"].classes)
        if place is not None:
            places[split] = place
    if "val" in places and "val" not in chosen and "test" not in places:
        layout.notes.append(
            f"No test split: {relative(places['val'].folder, root.path)}/ is used for testing."
        )
        places["test"] = places.pop("val")
    layout.places = places
    levels = [*layout.levels, top, *(place.folder for place in places.values())]
    layout.levels = list({level.path: level for level in levels}.values())
    return layout


class _Finder:
    """Finds splits that are not set by the user among the folders in `top`.

    places: splits set by the user. recognise: whether folder names may mean a split.
    """

    def __init__(
        self,
        root: str,
        top: Folder,
        places: Mapping[str, Place],
        layout: Layout,
        recognise: bool,
    ) -> None:
        self.root = root
        self.top = top
        self.layout = layout
        self.chosen = [place.folder.path for place in places.values()]
        self.free = [folder for folder in top.subfolders if not self._is_chosen(folder)]
        self.named = split_names([folder.name for folder in self.free]) if recognise else {}
        self.unnamed = [folder for folder in self.free if folder.name not in self.named]

    def train(self) -> Place:
        """The training split."""
        candidates = self._folders_named("train")
        if not candidates:
            if self.named and not self.chosen:
                raise self._no_train_split()
            return self._all_as_classes(self.named)
        if len(candidates) > 1:
            raise self._ambiguous("train", candidates)
        only_split = len(self.named) == 1 and not self.chosen
        place = self.with_classes(candidates[0])
        if not place.classes:
            if self.unnamed and only_split:  # bus/, car/ and train/ with images: three classes
                return self._all_as_classes({})
            raise no_class_folders(place.folder)
        if only_split:
            self._check_siblings(candidates[0], place)
        return place

    def with_classes(self, folder: Folder) -> Place:
        """The class folders in `folder`, or in the folder that it wraps."""
        folder = _enter(folder, self.layout, lambda child: True)
        if folder.path == self.top.path:
            return self._all_as_classes(self.named)
        classes = {
            child.name: child for child in folder.listing.folders if not self._is_chosen(child)
        }
        has_images = any(child.has_images for child in classes.values())
        return Place(folder, classes if has_images else {})

    def held_out(self, split: str, chosen: Place | None, known: Collection[str]) -> Place | None:
        """The validation or test split; None if there is none or it has no labels.

        known: classes of the training split. Raises DataError for any other class.
        """
        if chosen is None:
            candidates = self._folders_named(split)
            if len(candidates) > 1:
                raise self._ambiguous(split, candidates)
            if not candidates:
                return None
        folder = candidates[0] if chosen is None else chosen.folder
        folder = _enter(folder, self.layout, lambda child: child.name not in known)
        refuse_two_forms([child.name for child in folder.subfolders], self._name(folder))
        by_nfc = {unicodedata.normalize("NFC", name): name for name in known}
        classes = {
            by_nfc.get(unicodedata.normalize("NFC", child.name), child.name): child
            for child in folder.listing.folders
            if (child.has_images or child.name in known) and not self._is_chosen(child)
        }
        unknown = sorted(set(classes) - set(known), key=natural)
        unlabelled = len(classes) == len(unknown) == 1 and _is_no_class(classes[unknown[0]], folder)
        if not any(child.has_images for child in classes.values()) or unlabelled:
            if chosen is not None:
                raise no_class_folders(folder)
            if folder.listing.images or unlabelled:
                self.layout.notes.append(
                    f"{self._name(folder)}/ has {folder.count()} without class folders: they have "
                    "no labels and are not used."
                )
            return None
        if unknown:
            raise self._untrained_classes(folder, unknown, known)
        return Place(folder, classes)

    def _all_as_classes(self, excluded: Collection[str]) -> Place:
        """All folders in `top` as classes."""
        classes = {
            folder.name: folder
            for folder in self.top.listing.folders
            if folder.name not in excluded
            and not self._is_chosen(folder)
            and (folder.has_images or folder.name.lower() not in METADATA)
        }
        if not any(folder.has_images for folder in classes.values()) and self.top.listing.images:
            raise no_class_folders(self.top)
        return Place(self.top, classes)

    def _folders_named(self, split: str) -> list[Folder]:
        """The folders whose names mean `split`; an exact name wins over decorated ones."""
        candidates = [
            folder
            for folder in self.free
            if folder.name in self.named and self.named[folder.name].split == split
        ]
        exact = [folder for folder in candidates if self.named[folder.name].exact]
        rivals = [
            folder for folder in candidates if folder not in exact and self.named[folder.name].plain
        ]
        return exact if exact and not rivals else candidates

    def _is_chosen(self, folder: Folder) -> bool:
        """Whether a setting names this folder or one below it."""
        return any(inside(path, folder.path) for path in self.chosen)

    def _name(self, folder: Folder) -> str:
        return relative(folder, self.root)

    def _names(self, folders: Collection[Folder]) -> str:
        return abbreviate([f"{self._name(folder)}/" for folder in folders])

    def _check_siblings(self, train: Folder, place: Place) -> None:
        """Raise DataError for siblings of `train/` that may be its test split, or classes."""
        for sibling in self.unnamed:
            inner = _enter(sibling, Layout(), lambda child: child.name not in place.classes)
            names = {folder.name for folder in inner.subfolders}
            if names and 2 * len(names & set(place.classes)) >= len(names):
                raise DataError(
                    f"{self._name(sibling)}/ has class folders like {self._name(train)}/, but its "
                    f"name is not a split's: {setting('test', self._name(sibling))} makes it the "
                    f"test split, {setting('train', self._name(train))} leaves it out."
                )
        flat = [folder for folder in self.unnamed if folder.listing.images]
        if len(flat) > 1:
            raise DataError(
                f"{self.top.path}: {self._name(train)}/ may be the training split or a class like "
                f"{self._names(flat)}: set {setting('train', self._name(train))} for the split, "
                f"{setting('train', self._below('*'))} for classes."
            )

    def _below(self, name: str) -> str:
        prefix = self._name(self.top)
        return name if prefix == "." else f"{prefix}/{name}"

    def _no_train_split(self) -> DataError:
        held_out = self._names([folder for folder in self.free if folder.name in self.named])
        if self.unnamed:
            refuse_shared(self._all_as_classes(self.named), self.root)  # folds next to test/
            return DataError(
                f"{self.top.path}: {held_out} may be a split or a class like "
                f"{self._names(self.unnamed)}: set {setting('train', self._name(self.top))} to "
                f"leave it out of the training classes, {setting('train', self._below('*'))} to "
                "make it one."
            )
        empty = [folder for folder in self.top.listing.folders if not folder.has_images]
        named = split_names([folder.name for folder in empty])
        trains = [f for f in empty if f.name in named and named[f.name].split == "train"]
        what = f"{self._names(trains)} has no images" if trains else "there is no train/"
        return DataError(
            f"{self.top.path}: {what} next to {held_out}; expected train/<class>/<image>, or "
            "dataset.train_folder=... for the folder of the training images."
        )

    def _ambiguous(self, split: str, candidates: list[Folder]) -> DataError:
        names = sorted(map(self._name, candidates), key=lambda name: "eval" in name.lower())
        choices = setting(split, names[0])
        if split == "val" and not self._folders_named("test"):
            choices += f" {setting('test', names[1])}"
        return DataError(
            f"{self.top.path} contains both {names[0]}/ and {names[1]}/, names of the same split: "
            f"{choices} decides."
        )

    def _untrained_classes(
        self, folder: Folder, unknown: list[str], known: Collection[str]
    ) -> DataError:
        hint = did_you_mean(unknown[0], known)
        several = len(unknown) > 1
        return DataError(
            f"{'Classes' if several else 'A class'} only in {self._name(folder)}/, without "
            f"training images: {abbreviate(unknown)}.{hint} Add training images, or rename or "
            f"move {'these folders' if several else f'{shown(folder.path)}/{shown(unknown[0])}'}."
        )


def _enter(folder: Folder, layout: Layout, allowed: Callable[[Folder], bool]) -> Folder:
    """The folder that contains splits or classes, below any wrapper folders."""
    seen = {os.path.realpath(folder.path)}
    while len(folder.subfolders) == 1 and not folder.listing.images:
        child = folder.subfolders[0]
        if not allowed(child) or child.listing.images or not child.subfolders:
            break
        real = os.path.realpath(child.path)
        if real in seen:
            raise DataError(f"{shown(child.path)} leads back to a folder above it: remove it.")
        seen.add(real)
        layout.levels.append(folder)
        folder = child
    return folder


def _is_no_class(child: Folder, parent: Folder) -> bool:
    """Whether the name of a split's only sub-folder is not a class, as in `test/images/1.jpg`."""
    name = child.name.lower()
    return name in NOT_CLASSES or name in SPLIT_OF or name == parent.name.lower()
