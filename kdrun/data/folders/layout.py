"""Where the splits and classes of an image folder lie.

Known layouts are recognised; what can be read in two ways stops with the settings that decide.
"""

import os
import unicodedata
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from kdrun.data.class_order import abbreviated, natural
from kdrun.data.folders.ambiguous import refuse_shared
from kdrun.data.folders.folder import Folder, Place, inside, relative, shown
from kdrun.data.folders.settings import STAR, chosen_place, refuse_equal, setting
from kdrun.data.folders.split_names import SPLIT_OF, SplitName, split_name, split_names
from kdrun.data.folders.unlabelled import no_class_folders
from kdrun.errors import DataError, did_you_mean

# Names of a single folder, inside a split's folder, that say nothing of a class.
NO_CLASS = {
    *("all", "data", "files", "image", "images", "img", "imgs", "jpeg", "jpg", "photos", "pics"),
    *("pictures", "png", "unknown", "unlabeled", "unlabelled", "unsorted"),
}


@dataclass
class Layout:
    """Where the splits lie, and what was passed over on the way.

    levels: folders whose sub-folders are splits or classes; their other content is not read.
    notes: what was assumed.
    """

    places: dict[str, Place] = field(default_factory=dict)
    levels: list[Folder] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def unread(self) -> list[Folder]:
        """The folders beside those that are read."""
        above: set[str] = set()
        for place in self.places.values():
            for path in (place.folder.path, *(one.path for one in place.classes.values())):
                while path not in above:
                    above.add(path)
                    path = os.path.dirname(path)
        return [
            folder
            for level in self.levels
            for folder in level.listing.folders
            if folder.path not in above
        ]


def find_layout(root: Folder, chosen: Mapping[str, str]) -> Layout:
    """The layout below `root`. chosen: split → the value of `dataset.<split>_folder`.

    Raises DataError for folders that hold no classes or can be read in two ways, ConfigError for
    a setting that names no folder.
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
        refuse_shared(places["train"], root.path)
    for split in ("val", "test"):
        if split in stars:
            continue
        found = finder.held(split, places.pop(split, None), places["train"].classes)
        if found is not None:
            places[split] = found
    if "val" in places and "val" not in chosen and "test" not in places:
        layout.notes.append(
            f"There is no test split: {relative(places['val'].folder, root.path)}/ is used as it."
        )
        places["test"] = places.pop("val")
    layout.places = places
    every = [*layout.levels, top, *(place.folder for place in places.values())]
    layout.levels = list({level.path: level for level in every}.values())
    return layout


class _Finder:
    """Finds what no setting names among the folders in `top`.

    places: what settings name. recognise: whether folder names may mean a split.
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
        self.free = [one for one in top.listing.folders if one.bearing and not self._taken(one)]
        self.named = split_names([one.name for one in self.free]) if recognise else {}
        self.others = [one for one in self.free if one.name not in self.named]

    def train(self) -> Place:
        """The training split."""
        found = self._called("train")
        if not found:
            if self.named and not self.chosen:
                raise self._without_train()
            return self._whole(self.named)
        if len(found) > 1:
            raise self._ambiguous("train", found)
        alone = len(self.named) == 1 and not self.chosen
        place = self.with_classes(found[0])
        if not place.classes:
            if self.others and alone:  # bus/, car/ and train/, all full of images: classes
                return self._whole({})
            raise no_class_folders(place.folder)
        if alone:
            self._check_siblings(found[0], place)
        return place

    def with_classes(self, folder: Folder) -> Place:
        """The class folders in `folder` or, where it only wraps another folder, in that one."""
        folder = _enter(folder, self.layout, lambda child: True)
        if folder.path == self.top.path:
            return self._whole(self.named)
        found = [one for one in folder.listing.folders if not self._taken(one)]
        some = any(one.bearing for one in found)
        return Place(folder, {one.name: one for one in found} if some else {})

    def held(self, split: str, chosen: Place | None, known: Collection[str]) -> Place | None:
        """The validation or test split; None when there is none or it has no labels.

        known: the classes of the training split. Raises DataError for any other class.
        """
        if chosen is None:
            found = self._called(split)
            if len(found) > 1:
                raise self._ambiguous(split, found)
            if not found:
                return None
        folder = found[0] if chosen is None else chosen.folder
        folder = _enter(folder, self.layout, lambda child: child.name not in known)
        same = {unicodedata.normalize("NFC", name): name for name in known}
        classes = {
            same.get(unicodedata.normalize("NFC", one.name), one.name): one
            for one in folder.listing.folders
            if (one.bearing or one.name in known) and not self._taken(one)
        }
        unknown = sorted(set(classes) - set(known), key=natural)
        bare = len(classes) == len(unknown) == 1 and _means_no_class(classes[unknown[0]], folder)
        if not any(one.bearing for one in classes.values()) or bare:
            if chosen is not None:
                raise no_class_folders(folder)
            if folder.listing.images or bare:
                self.layout.notes.append(
                    f"{self._name(folder)}/ holds {folder.count()} without class folders: they "
                    "have no labels and are not used."
                )
            return None
        if unknown:
            raise self._only_held(split, folder, unknown, known)
        return Place(folder, classes)

    def _whole(self, excluded: Collection[str]) -> Place:
        """All folders in `top` as classes."""
        found = [
            one
            for one in self.top.listing.folders
            if one.name not in excluded and not self._taken(one)
        ]
        if not any(one.bearing for one in found) and self.top.listing.images:
            raise no_class_folders(self.top)
        return Place(self.top, {one.name: one for one in found})

    def _called(self, split: str) -> list[Folder]:
        """The folders whose names mean a split."""
        found = [one for one in self.free if self._split_of(one) == split]
        exact = [one for one in found if self.named[one.name].exact]
        unclear = [one for one in found if one not in exact and self.named[one.name].plain]
        return exact if exact and not unclear else found

    def _split_of(self, folder: Folder) -> str | None:
        meaning: SplitName | None = self.named.get(folder.name)
        return meaning.split if meaning else None

    def _taken(self, folder: Folder) -> bool:
        """Whether a setting names this folder, or one below it."""
        return any(inside(path, folder.path) for path in self.chosen)

    def _name(self, folder: Folder) -> str:
        return relative(folder, self.root)

    def _names(self, folders: Collection[Folder]) -> str:
        return abbreviated([f"{self._name(one)}/" for one in folders])

    def _check_siblings(self, train: Folder, place: Place) -> None:
        """Raise DataError for folders beside `train/` that may be its test split, or classes."""
        for other in self.others:
            inner = _enter(other, Layout(), lambda child: child.name not in place.classes)
            names = {one.name for one in inner.inner}
            if names and 2 * len(names & set(place.classes)) >= len(names):
                raise DataError(
                    f"{self._name(other)}/ has class folders like {self._name(train)}/, and its "
                    f"name means no split: {setting('test', self._name(other))} makes it the test "
                    f"split, {setting('train', self._name(train))} leaves it out."
                )
        flat = [one for one in self.others if one.listing.images]
        if len(flat) > 1:
            raise DataError(
                f"{self.top.path}: {self._name(train)}/ may be the training split or a class like "
                f"{self._names(flat)}: set {setting('train', self._name(train))} for the split, "
                f"{setting('train', self._below('*'))} for classes."
            )

    def _below(self, name: str) -> str:
        prefix = self._name(self.top)
        return name if prefix == "." else f"{prefix}/{name}"

    def _without_train(self) -> DataError:
        held = self._names([one for one in self.free if one.name in self.named])
        if self.others:
            refuse_shared(self._whole(self.named), self.root)  # folds beside test/
            return DataError(
                f"{self.top.path}: {held} may be a split or a class like "
                f"{self._names(self.others)}: set {setting('train', self._name(self.top))} to "
                f"leave it out of the training classes, {setting('train', self._below('*'))} to "
                "make it one."
            )
        empty = [one for one in self.top.listing.folders if not one.bearing]
        named = split_names([one.name for one in empty])
        trains = [one for one in empty if one.name in named and named[one.name].split == "train"]
        what = f"{self._names(trains)} holds no images" if trains else "there is no train/"
        return DataError(
            f"{self.top.path}: {what} beside {held}; expected train/<class>/<image>, or "
            "dataset.train_folder=... to name the folder of the training images."
        )

    def _ambiguous(self, split: str, found: list[Folder]) -> DataError:
        names = sorted((self._name(one) for one in found), key=lambda name: "eval" in name.lower())
        choices = setting(split, names[0])
        if split == "val" and not self._called("test"):
            choices += f" {setting('test', names[1])}"
        return DataError(
            f"{self.top.path} holds both {names[0]}/ and {names[1]}/, names of one split: "
            f"{choices} says which is which."
        )

    def _only_held(
        self, split: str, folder: Folder, unknown: list[str], known: Collection[str]
    ) -> DataError:
        hint = did_you_mean(unknown[0], known)
        several = len(unknown) > 1
        return DataError(
            f"{'Classes' if several else 'A class'} only in {self._name(folder)}/, without "
            f"training images: {abbreviated(unknown)}.{hint} Add training images, or rename or "
            f"move {'these folders' if several else f'{shown(folder.path)}/{shown(unknown[0])}'}."
        )


def _enter(folder: Folder, layout: Layout, allowed: Callable[[Folder], bool]) -> Folder:
    """The folder that holds splits or classes, below folders that only wrap another one."""
    seen = {os.path.realpath(folder.path)}
    while len(folder.inner) == 1 and not folder.listing.images:
        child = folder.inner[0]
        if not allowed(child) or child.listing.images or not child.inner:
            break
        real = os.path.realpath(child.path)
        if real in seen:
            raise DataError(f"{shown(child.path)} leads back to a folder above it: remove it.")
        seen.add(real)
        layout.levels.append(folder)
        folder = child
    return folder


def _means_no_class(child: Folder, parent: Folder) -> bool:
    """Whether a split's only folder has a name that is no class: `test/images/1.jpg`."""
    name = child.name.lower()
    return name in NO_CLASS or name in SPLIT_OF or name == parent.name.lower()
