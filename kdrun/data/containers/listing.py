"""The images and labels that a table or container lists, by split, as a `Tree`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdrun.data.class_order import natural
from kdrun.data.folders.split_names import plain_split
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


def _split_by_folders(train: Listing, base: Path) -> dict[str, Listing] | None:
    """The images in the splits that the folders in their paths name, if all of them do.

    `train/cat/0.png`, `test/dog/1.png`: of a table, Parquet paths or members of tar files. None
    unless some images are in a folder of training images, and some in another.
    """
    rows: dict[str, list[int]] = {}
    for row, source in enumerate(train.sources):
        split = _folder_split(source, base)
        if split is None:
            return None
        rows.setdefault(split, []).append(row)
    if "train" not in rows or len(rows) == 1:
        return None
    return {split: train.select(chosen) for split, chosen in rows.items()}


def _folder_split(source: Source, base: Path) -> str | None:
    """The split that the first of the folders names that name one."""
    path = str(getattr(source, "name", "")) if isinstance(source, Member) else str(source)
    folders = path.removeprefix(f"{base}/").split("/")[:-1]
    return next(filter(None, map(plain_split, folders)), None)


def select_splits(
    listings: dict[str, Listing], what: str, base: Path | None
) -> tuple[dict[str, Listing], list[str]]:
    """The non-empty splits in the order train, val, test, and notes.

    If all images are training images, the folders in their paths below `base` may tell the splits;
    None: they do not. A validation split without a test split becomes the test split, as in an
    image folder.
    Raises DataError without training images.
    """
    present = {name: rows for name, rows in listings.items() if len(rows)}
    notes = []
    if base is not None and set(present) == {"train"}:
        by_folder = _split_by_folders(present["train"], base)
        if by_folder is not None:
            present = by_folder
            notes.append(f"{base.name}: splits from the folders in the paths of the images.")
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
