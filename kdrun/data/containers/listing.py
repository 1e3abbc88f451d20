"""The images and labels that a table or container lists, by split, as a `Tree`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdrun.data.class_order import natural
from kdrun.data.folders.split_names import plain_split, split_in_file_name
from kdrun.data.images import SPLITS
from kdrun.data.text import abbreviate
from kdrun.data.tree import FileList, Member, Source, Tree
from kdrun.errors import DataError


@dataclass
class Listing:
    """The images of one split in order, with their labels as text.

    sizes: bytes of each image. times: `changed_at` of its file or container.
    """

    sources: list[Source] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, source: Source, label: str, size: int, time: int) -> None:
        """Append one image."""
        self.sources.append(source)
        self.labels.append(label)
        self.sizes.append(size)
        self.times.append(time)

    def select(self, rows: Sequence[int]) -> "Listing":
        """The images at positions `rows`, in that order."""
        return Listing(
            [self.sources[row] for row in rows],
            [self.labels[row] for row in rows],
            [self.sizes[row] for row in rows],
            [self.times[row] for row in rows],
        )


def _split_by_paths(train: Listing, base: Path) -> tuple[dict[str, Listing], str] | None:
    """The images in the splits that their paths tell, and what tells them.

    `train/cat/0.png`, `test/dog/1.png`, or `train_0.png`, `test_1.png`: in a table, Parquet paths,
    or members of tar files. None unless all paths tell a split, some of them training and some
    another. File names must differ so within a class.
    """
    paths = [_path(source) for source in train.sources]
    what = "the folders in the paths"
    rows = _rows_by_split(_folder_split(path, base) for path in paths)
    if rows is None:
        what = "the file names"
        rows = _rows_by_split(map(split_in_file_name, paths))
        if rows is None or _one_split_per_class(train.labels, rows):
            return None
    return {split: train.select(chosen) for split, chosen in rows.items()}, what


def _rows_by_split(splits: Iterable[str | None]) -> dict[str, list[int]] | None:
    """Split → its rows, if there is one for each row and train is one of several."""
    rows: dict[str, list[int]] = {}
    for row, split in enumerate(splits):
        if split is None:
            return None
        rows.setdefault(split, []).append(row)
    return rows if "train" in rows and len(rows) > 1 else None


def _one_split_per_class(labels: Sequence[str], rows: dict[str, list[int]]) -> bool:
    """Whether no class has images in two splits: then the names tell the class (a vehicle)."""
    pairs = {(labels[row], split) for split, chosen in rows.items() for row in chosen}
    return len(pairs) == len(set(labels))


def _path(source: Source) -> str:
    return str(getattr(source, "name", "")) if isinstance(source, Member) else str(source)


def _folder_split(path: str, base: Path) -> str | None:
    """The split that the first of the folders names that name one."""
    folders = path.removeprefix(f"{base}/").split("/")[:-1]
    return next(filter(None, map(plain_split, folders)), None)


def select_splits(
    listings: dict[str, Listing], what: str, base: Path | None
) -> tuple[dict[str, Listing], list[str]]:
    """The non-empty splits in the order train, val, test, and notes.

    If all images are training images, their paths below `base` may tell the splits; None: they do
    not. A validation split without a test split becomes the test split, as in an
    image folder.
    Raises DataError without training images.
    """
    present = {name: rows for name, rows in listings.items() if len(rows)}
    notes = []
    if base is not None and set(present) == {"train"}:
        told = _split_by_paths(present["train"], base)
        if told is not None:
            present, what_tells = told
            notes.append(f"{base.name}: splits from {what_tells} of the images.")
    if "train" not in present:
        splits = ", ".join(sorted(present)) or "nothing"
        raise DataError(f"{what} has no training images (it has {splits}).")
    if "val" in present and "test" not in present:
        present["test"] = present.pop("val")
        notes.append(f"{what} has no test split: the validation split is used for testing.")
    return {name: present[name] for name in SPLITS if name in present}, notes


def as_tree(
    root: Path, origin: str, listings: dict[str, Listing], classes: Sequence[str], what: str
) -> Tree:
    """A tree of these splits; each label is one of `classes`.

    Raises DataError for validation or test images of a class without training images.
    """
    number = {name: position for position, name in enumerate(classes)}
    train = set(listings["train"].labels)
    for split, rows in listings.items():
        unseen = sorted(set(rows.labels) - train, key=natural)
        if unseen:
            raise DataError(
                f"{what}: {len(unseen)} {'class' if len(unseen) == 1 else 'classes'} of the "
                f"{split} split {'has' if len(unseen) == 1 else 'have'} no training images: "
                f"{abbreviate(unseen)}."
            )
    splits = {
        split: FileList(
            rows.sources, [number[label] for label in rows.labels], rows.sizes, rows.times
        )
        for split, rows in listings.items()
    }
    return Tree(root, tuple(classes), splits, origin)


def sorted_by_class(rows: Listing, classes: Sequence[str]) -> Listing:
    """The images sorted by class, then path, as in an image folder."""
    number = {name: position for position, name in enumerate(classes)}
    return rows.select(
        sorted(range(len(rows)), key=lambda row: (number[rows.labels[row]], str(rows.sources[row])))
    )
