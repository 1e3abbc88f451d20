"""The last steps that tables and containers share: from listed images to a data set."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdrun.data.imagefolder import from_tree
from kdrun.data.images import RawDataset
from kdrun.data.measure import Progress
from kdrun.data.splits import check_test_fraction, hold_out_test
from kdrun.data.tree import Tree


@dataclass(frozen=True)
class Reading:
    """How listed images are read; the arguments of `imagefolder` of the same names."""

    image_size: int | list[int] | None
    channels: int | None
    test_fraction: float
    cache: bool
    cache_root: Path
    split_seed: int
    progress: Progress | None

    def __post_init__(self) -> None:
        check_test_fraction(self.test_fraction)


def read_listed(tree: Tree, notes: Sequence[str], reading: Reading) -> RawDataset:
    """The images of a tree, decoded and cached as those of an image folder.

    notes: what was decided so far; they come first. Test images are held out where there are none.
    """
    raw = from_tree(
        tree,
        reading.image_size,
        reading.channels,
        reading.cache,
        reading.cache_root,
        reading.progress,
    )
    raw = dataclasses.replace(raw, notes=(*notes, *raw.notes))
    if raw.test is not None:
        return raw
    return hold_out_test(raw, reading.test_fraction, reading.split_seed)
